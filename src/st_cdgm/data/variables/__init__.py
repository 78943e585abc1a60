"""What a variable is: names, units, ranges, levels, kinds."""
