//! CubeCL, all its runtimes, with and without fusion: the portable bodies, until a kernel of ours wins.

impl crate::TowerOps for burn_cubecl::CubeBackend {}
