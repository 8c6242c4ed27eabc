"""The inspection station: pictures in, verdicts out, each of them remembered. Needs the extra `serve`."""
