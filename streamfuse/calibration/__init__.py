"""Where, and when, two cameras see the same thing: the file that says so, and ways to find it out."""
