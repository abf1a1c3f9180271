"""Model recipes: one TOML file a model. Read by edgevtc.catalogue; README.md explains every key."""
