//! `http.params`: the query of a request in the form of the Python agent's plugins, with secrets taken out.
use wildmatch::WildMatch;

/// What stands for a value that is not shown.
const REDACTED: &str = "***";

/// Which parameters' values are not shown, as patterns for their names.
#[derive(Clone, Debug, PartialEq)]
pub struct Redaction(Vec<WildMatch>);

impl Redaction {
    /// Comma between patterns; `*` stands for any characters, `?` for one, and case does not matter.
    pub fn new(patterns: &str) -> Redaction {
        let patterns = patterns.split(',').map(str::trim).filter(|pattern| !pattern.is_empty());
        Redaction(patterns.map(WildMatch::new_case_insensitive).collect())
    }

    fn hides(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(name))
    }
}

/// `key=[value,value]` for each key of a query, a line each, in the order in which they come first, cut to `limit`
/// characters; nothing without a query.
pub fn of(query: &str, redaction: &Redaction, limit: Option<usize>) -> Option<String> {
    let mut all: Vec<(String, Vec<String>)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decoded(name);
        let value = if redaction.hides(&name) { REDACTED.to_owned() } else { decoded(value) };
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value),
            None => all.push((name, vec![value])),
        }
    }
    let lines: Vec<String> =
        all.into_iter().map(|(name, values)| format!("{name}=[{}]", values.join(","))).collect();
    let text = lines.join("\n");
    let text = match limit {
        Some(limit) => text.chars().take(limit).collect(),
        None => text,
    };
    (!text.is_empty()).then_some(text)
}

/// Percent signs and plus signs undone; what is no UTF-8, and control characters, show as U+FFFD.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut after = rest.clone();
        let mut digit = || after.next().and_then(|digit| char::from(digit).to_digit(16));
        match (byte, digit(), digit()) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                rest = after;
            }
            (b'+', _, _) => bytes.push(b' '),
            _ => bytes.push(byte),
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parameters_are_in_the_agents_form() {
        let nothing = Redaction::new("");
        let of = |query| of(query, &nothing, None).unwrap_or_default();
        assert_eq!(of("a=1&b=2&a=3"), "a=[1,3]\nb=[2]");
        assert_eq!(of("a=&b&=x"), "a=[]\nb=[]\n=[x]");
        assert_eq!(of("q=a+b%20c%2&n%C3%A9=%ff%0a"), "q=[a b c%2]\nné=[\u{fffd}\u{fffd}]");
        assert_eq!((of(""), of("&&")), (String::new(), String::new()));
    }

    #[test]
    fn they_are_cut_and_secrets_are_not_shown() {
        let redaction = Redaction::new(" *token*, pass?ord ,");
        let query = "Access_Token=s3&password=p&passwords=q&x=é1";
        let whole = "Access_Token=[***]\npassword=[***]\npasswords=[q]\nx=[é1]";
        assert_eq!(of(query, &redaction, None).as_deref(), Some(whole));
        assert_eq!(of(query, &redaction, Some(16)).as_deref(), Some("Access_Token=[**"));
        assert_eq!(of(query, &redaction, Some(0)), None);
        assert_eq!(of("%74oken=s3", &redaction, None).as_deref(), Some("token=[***]"));
    }

    proptest! {
        #[test]
        fn a_secret_never_shows(before in "[a-z&=%0-9+]{0,30}", secret in "[A-Z]{8,20}") {
            let shown = of(&format!("{before}&token={secret}"), &Redaction::new("token"), None);
            prop_assert!(!shown.unwrap_or_default().contains(&secret));
        }
    }
}
