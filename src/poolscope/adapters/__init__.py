"""One file per pool library: where its checkouts and checkins are hooked."""
