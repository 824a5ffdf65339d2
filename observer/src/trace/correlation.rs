//! The `sw8-correlation` header: what the caller's application hands on.
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Reads `name:value` pairs in base64 with commas between, as the Python agent does: at most `most`, a later one of a name in
/// the place of the first, values of any length. Unlike there, one that is no pair of texts is passed over and ends nothing.
pub fn parse(header: &str, most: usize) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for element in header.split(',') {
        if all.len() >= most {
            break;
        }
        let Some((name, value)) = pair(element) else { continue };
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => all.push((name, value)),
        }
    }
    all
}

fn pair(element: &str) -> Option<(String, String)> {
    let (name, value) = element.trim().split_once(':')?;
    let text = |part: &str| String::from_utf8(STANDARD.decode(part).ok()?).ok();
    Some((text(name)?, text(value)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(pairs: &[(String, String)]) -> String {
        let pair =
            |(name, value): &(String, String)| [STANDARD.encode(name), STANDARD.encode(value)].join(":");
        pairs.iter().map(pair).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn what_is_no_pair_is_passed_over() {
        let header = "YQ==:MQ==, Yg==:Mg== ,x,YQ==:MQ==:Mg==,!!:MQ==,/w==:MQ==,,Yw==:,YQ==:OQ==";
        let found: Vec<_> =
            parse(header, 9).into_iter().map(|(name, value)| [name, value].join("=")).collect();
        assert_eq!(found, ["a=9", "b=2", "c="]);
        assert_eq!(parse("", 9), []);
        assert_eq!(parse(header, 0), []);
    }

    proptest! {
        #[test]
        fn reads_back_what_was_encoded(names in prop::collection::btree_set(".{0,9}", 0..5), value in ".{0,300}") {
            let pairs: Vec<_> = names.into_iter().map(|name| (name, value.clone())).collect();
            prop_assert_eq!(parse(&encode(&pairs), 4), pairs.iter().take(4).cloned().collect::<Vec<_>>());
        }

        #[test]
        fn never_panics(header in ".*", most in 0_usize..5) {
            prop_assert!(parse(&header, most).len() <= most);
        }
    }
}
