//! Writes the generated code anew: `cargo xtask proto`.
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    proto::codegen::generate(&proto::codegen::committed())
}
