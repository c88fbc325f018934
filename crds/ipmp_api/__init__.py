"""The API `ipmp.dev/v1alpha1`, stated once: types, defaults, validation, compile step and CRDs."""
