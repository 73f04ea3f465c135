"""Use of temperatures in a run: colours of warm things, figures in the picture, alarms."""
