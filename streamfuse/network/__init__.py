"""The CrossFuse network and its weights files."""
