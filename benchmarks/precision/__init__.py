"""What rounding does to the ratios that PRDP and DDPO clip."""
