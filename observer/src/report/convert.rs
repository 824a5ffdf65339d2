//! Our types to SkyWalking's messages, and nothing else. Segments are encoded apart.

use std::collections::BTreeMap;

use proto::v3;

use crate::identity::Instance;
use crate::identity::event::Event;
use crate::meter::MeterBatch;

/// What OAP's databases hold of an event's message. OAP does not cut it: one that is longer fails to be stored.
const MESSAGE_LIMIT: usize = 2000;
/// What OAP keeps of an event's parameters, written as JSON. It cuts the rest off, after which nobody can read them.
const PARAMETERS_LIMIT: usize = 4000;

/// What an instance is.
pub(super) fn properties(instance: &Instance) -> v3::InstanceProperties {
    v3::InstanceProperties {
        service: instance.service.to_string(),
        service_instance: instance.name.to_string(),
        properties: instance.properties.iter().map(|(key, value)| pair(key, value)).collect(),
        layer: String::new(),
    }
}

/// A sign of life; the empty layer means GENERAL.
pub(super) fn ping(instance: &Instance) -> v3::InstancePingPkg {
    v3::InstancePingPkg {
        service: instance.service.to_string(),
        service_instance: instance.name.to_string(),
        layer: String::new(),
    }
}

/// All meters of an instance, each complete: OAP takes service, instance and time from the last one.
pub(super) fn meters(batch: &MeterBatch) -> v3::MeterDataCollection {
    let label =
        |(name, value): &(&'static str, String)| v3::Label { name: (*name).to_owned(), value: value.clone() };
    let data = |meter: &crate::meter::Meter| v3::MeterData {
        metric: Some(v3::meter_data::Metric::SingleValue(v3::MeterSingleValue {
            name: meter.name.to_owned(),
            labels: meter.labels.iter().map(label).collect(),
            value: meter.value,
        })),
        service: batch.service.to_string(),
        service_instance: batch.instance.to_string(),
        timestamp: batch.at_ms,
    };
    v3::MeterDataCollection { meter_data: batch.meters.iter().map(data).collect() }
}

/// One message about an event; the layer is required here. What is too long for OAP ends in an ellipsis.
pub(super) fn event(event: &Event) -> v3::Event {
    v3::Event {
        uuid: event.uuid.clone(),
        source: Some(v3::Source {
            service: event.service.to_string(),
            service_instance: event.instance.to_string(),
            endpoint: String::new(),
        }),
        name: event.name.as_str().to_owned(),
        r#type: if event.error { v3::Type::Error } else { v3::Type::Normal }.into(),
        message: cut(&event.message, MESSAGE_LIMIT, char::len_utf16),
        parameters: parameters(&event.parameters),
        start_time: event.start_ms,
        end_time: event.end_ms.unwrap_or_default(),
        layer: "GENERAL".to_owned(),
    }
}

/// Those that come first, such as the cause, have first claim to the room there is.
fn parameters(pairs: &[(&'static str, String)]) -> BTreeMap<String, String> {
    let around = |key: &str| "\"\":\"\",".len() + key.chars().map(in_json).sum::<usize>();
    let keys: usize = pairs.iter().map(|(key, _)| around(key)).sum();
    let mut room = PARAMETERS_LIMIT.saturating_sub("{}".len() + keys);
    let fitted = |(key, value): &(&'static str, String)| {
        let value = cut(value, room, in_json);
        room = room.saturating_sub(value.chars().map(in_json).sum());
        ((*key).to_owned(), value)
    };
    pairs.iter().map(fitted).collect()
}

/// How many UTF-16 units a character takes at most in the JSON that OAP makes, which escapes what HTML would mind, too.
fn in_json(c: char) -> usize {
    match c {
        '"' | '\\' => 2,
        '<' | '>' | '&' | '=' | '\'' | '\u{2028}' | '\u{2029}' => 6,
        c if c.is_control() => 6,
        c => c.len_utf16(),
    }
}

/// `text`, or the beginning of it that has a `size` of at most `limit` with an ellipsis.
fn cut(text: &str, limit: usize, size: impl Fn(char) -> usize) -> String {
    const ELLIPSIS: char = '…';
    if text.chars().map(&size).sum::<usize>() <= limit {
        return text.to_owned();
    }
    let Some(mut room) = limit.checked_sub(size(ELLIPSIS)) else { return String::new() };
    let fits = |c: &char| match room.checked_sub(size(*c)) {
        Some(rest) => {
            room = rest;
            true
        }
        None => false,
    };
    text.chars().take_while(fits).chain([ELLIPSIS]).collect()
}

fn pair(key: &str, value: &str) -> v3::KeyStringValuePair {
    v3::KeyStringValuePair { key: key.to_owned(), value: value.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::event::EventName;

    fn ended(message: &str, parameters: Vec<(&'static str, String)>) -> Event {
        Event {
            uuid: "u".to_owned(),
            service: "demo".into(),
            instance: "i".into(),
            name: EventName::Exit,
            error: true,
            message: message.to_owned(),
            parameters,
            start_ms: 1,
            end_ms: None,
        }
    }

    #[test]
    fn an_event_says_layer_and_type_and_0_while_it_lasts() {
        let message = event(&ended("m", vec![("cause", "oom".to_owned())]));
        assert_eq!(
            (message.layer.as_str(), message.r#type(), message.end_time),
            ("GENERAL", v3::Type::Error, 0)
        );
        assert_eq!(message.parameters, BTreeMap::from([("cause".to_owned(), "oom".to_owned())]));
    }

    #[test]
    fn a_message_of_any_length_fits_into_the_column() {
        for (message, expected) in [
            ("a".repeat(2000), "a".repeat(2000)),
            ("a".repeat(2001), "a".repeat(1999) + "…"),
            // Two units each: none is cut in half.
            ("😀".repeat(1001), "😀".repeat(999) + "…"),
        ] {
            assert_eq!(event(&ended(&message, Vec::new())).message, expected);
        }
    }

    #[test]
    fn parameters_of_any_length_stay_json_and_the_first_stay_whole() {
        for (filler, size) in [("x", 1), ("\"", 2), ("<", 6), ("\u{1}", 6), ("😀", 2)] {
            let pairs = vec![
                ("cause", "x".repeat(963)),
                ("sender", filler.repeat(4000)),
                ("status", "exit 0".to_owned()),
            ];
            let parameters = event(&ended("m", pairs)).parameters;
            let length = |key: &str| parameters.get(key).map_or(0, |value| value.chars().count());
            // 37 go to keys and signs, which leaves 3000.
            assert_eq!([length("cause"), length("sender")], [963, 1 + 2999 / size], "{filler:?}");
            assert!(parameters.contains_key("status"));
            // OAP's JSON, with the escapes of HTML.
            let json = serde_json::to_string(&parameters).expect("text");
            let units = json.encode_utf16().count() + 5 * json.matches('<').count();
            assert!((3990..=PARAMETERS_LIMIT).contains(&units), "{filler:?}: {units}");
        }
    }
}
