"""What a run does with temperatures: colours of warm things, figures in the picture, alarms."""
