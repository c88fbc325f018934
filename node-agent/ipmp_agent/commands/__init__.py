"""What people type: `ipmp-agent`, `ipmpstat` and `ipmpadm`."""
