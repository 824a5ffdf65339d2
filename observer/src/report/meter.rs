//! Meters to OAP: one short stream for many instances. Each message is one instance at one time, since OAP takes all of a
//! message for the last service, instance and time in it.

use proto::v3::meter_report_service_client::MeterReportServiceClient;

use crate::meter::MeterBatch;
use crate::report::convert;
use crate::report::grpc::Failure;
use crate::report::grpc::Link;

/// Sends all of `batches` in their order and closes the stream.
pub(super) async fn send(link: &Link, batches: &[MeterBatch]) -> Result<(), Failure> {
    let messages: Vec<_> = batches.iter().map(convert::meters).collect();
    let mut client = MeterReportServiceClient::new(link.channel());
    link.call(client.collect_batch(link.request(tokio_stream::iter(messages)))).await
}
