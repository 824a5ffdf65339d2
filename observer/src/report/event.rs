//! Events to OAP: one short stream per batch. Each stands for itself; OAP merges those of one uuid.

use proto::v3::event_service_client::EventServiceClient;

use crate::identity::event::Event;
use crate::report::convert;
use crate::report::grpc::Failure;
use crate::report::grpc::Link;

/// Sends all of `batch` in its order and closes the stream.
pub(super) async fn send(link: &Link, batch: &[Event]) -> Result<(), Failure> {
    let messages: Vec<_> = batch.iter().map(convert::event).collect();
    let mut client = EventServiceClient::new(link.channel());
    link.call(client.collect(link.request(tokio_stream::iter(messages)))).await
}
