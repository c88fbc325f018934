"""What people and machines see: functions of one snapshot."""
