//! SkyWalking's data collect protocol, as far as `sw-observe` speaks it: messages, clients, servers.

#[cfg(feature = "codegen")]
pub mod codegen;
pub mod encoded;

/// The protobuf package `skywalking.v3`.
pub mod v3 {
    #![expect(missing_docs, reason = "generated: what a comment in the .proto file says is all there is")]
    #![allow(
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        reason = "the generator's own habit"
    )]
    include!("gen/skywalking.v3.rs");
}
