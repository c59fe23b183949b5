//! What a contributor's commands are made of: the parts of `cargo xtask` that start and fill things.

pub mod base_images;
pub mod registry;
pub mod sample;
