//! Meters to OAP: one stream per instance and period, closed at once, because OAP reads it only then and takes all of it
//! for the instance and time of its last message.

use proto::v3::meter_report_service_client::MeterReportServiceClient;

use crate::meter::MeterBatch;
use crate::report::convert;
use crate::report::grpc::Failure;
use crate::report::grpc::Link;

/// Sends `batch` and closes the stream.
pub(super) async fn send(link: &Link, batch: &MeterBatch) -> Result<(), Failure> {
    let mut client = MeterReportServiceClient::new(link.channel());
    link.call(client.collect(link.request(tokio_stream::iter(convert::meters(batch))))).await
}
