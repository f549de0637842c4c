//! Shared helpers of the tests: free ports, waiting with a limit, real Blenders, scenes
