"""Tables, figures, the page and the terminal."""
