"""The built-in algorithms: one readable file each, registered like any third party's."""
