"""The Swift package and the demo app: data that a wheel carries (exporters/targets/ios.py), no Python."""
