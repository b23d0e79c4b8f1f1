"""What `rfbench doctor` looks at before GPU hours are spent: files, libraries, device, cost. It never goes online."""
