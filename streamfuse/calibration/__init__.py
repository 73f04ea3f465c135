"""Which infrared pixel lies on which visible one: the file that says so, and four ways to find it out."""
