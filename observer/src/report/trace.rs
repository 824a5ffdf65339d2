//! Segments to OAP: one short stream per batch. A segment stands for itself, so a stream may carry many instances.

use std::sync::Arc;

use crate::report::grpc::Failure;
use crate::report::grpc::Link;

/// Sends all of `batch` and closes the stream.
pub(super) async fn send(link: &Link, batch: &[Arc<[u8]>]) -> Result<(), Failure> {
    let messages = link.request(tokio_stream::iter(batch.to_vec()));
    link.call(proto::encoded::collect(link.channel(), messages)).await
}
