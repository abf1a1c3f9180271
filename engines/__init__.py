"""Device profiles: one TOML file a device. Read by edgevtc.catalogue; README.md explains every key."""
