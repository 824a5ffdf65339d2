//! Paths in Ant's style as the Python agent reads them: `?` is a character, `*` any within a segment, `**` segments, `/**/` a
//! slash or more segments between two.

/// A pattern that has to match a whole path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ant(Vec<Part>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    This(char),
    /// `[^/]`
    One,
    /// `[^/]*`
    Some,
    /// `(?:(?:[^/]+/)*[^/]+)?`
    Segments,
    /// `/(?:[^/]*/)*`
    Between,
}

impl Ant {
    /// Every text is a pattern.
    pub fn new(pattern: &str) -> Ant {
        let mut parts = Vec::new();
        let mut rest = pattern;
        while let Some(first) = rest.chars().next() {
            let known =
                [("/**/", Part::Between), ("**", Part::Segments), ("*", Part::Some), ("?", Part::One)];
            let found = known.into_iter().find_map(|(text, part)| Some((part, rest.strip_prefix(text)?)));
            let (part, after) =
                found.unwrap_or((Part::This(first), rest.get(first.len_utf8()..).unwrap_or_default()));
            parts.push(part);
            rest = after;
        }
        Ant(parts)
    }

    /// Whether the whole path is like it; the time grows with the product of both lengths.
    pub fn matches(&self, path: &str) -> bool {
        let path: Vec<char> = path.chars().collect();
        // Whether what was matched so far may end before the character of this number.
        let mut ends = vec![false; path.len() + 1];
        if let Some(first) = ends.first_mut() {
            *first = true;
        }
        for part in &self.0 {
            ends = part.after(&path, &ends);
        }
        ends.last().copied().unwrap_or(false)
    }
}

impl Part {
    /// Where this part may end when it may begin at any of `begins`.
    fn after(self, path: &[char], begins: &[bool]) -> Vec<bool> {
        let starts_empty = matches!(self, Part::Some | Part::Segments);
        let mut ends = Vec::with_capacity(begins.len());
        ends.push(starts_empty && begins.first().copied().unwrap_or(false));
        // Whether this part is under way: may go on with any character, or with none but a slash.
        let (mut open, mut is_inside) = (false, false);
        for (character, (begins, next)) in path.iter().zip(begins.iter().zip(begins.iter().skip(1))) {
            let is_slash = *character == '/';
            let end = match self {
                Part::This(wanted) => *begins && *character == wanted,
                Part::One => *begins && !is_slash,
                Part::Some => {
                    open = (open || *begins) && !is_slash;
                    open
                }
                Part::Segments => {
                    let goes_on = open || *begins;
                    (open, is_inside) =
                        if is_slash { (is_inside, false) } else { (false, goes_on || is_inside) };
                    is_inside
                }
                Part::Between => {
                    open |= *begins && is_slash;
                    open && is_slash
                }
            };
            ends.push(end || starts_empty && *next);
        }
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the agent's own expressions say.
    const CASES: [(&str, &str, bool); 36] = [
        ("/health", "/health", true),
        ("/health", "/health/", false),
        ("/health", "/healthz", false),
        ("/a/*", "/a/b", true),
        ("/a/*", "/a/", true),
        ("/a/*", "/a/b/c", false),
        ("/a/?", "/a/b", true),
        ("/a/?", "/a/", false),
        ("/a/?", "/a//", false),
        ("/a/**", "/a/", true),
        ("/a/**", "/a/b/c", true),
        ("/a/**", "/a/b/", false),
        ("/a/**", "/a", false),
        ("/a/**", "/a//b", false),
        ("/**/live", "/live", true),
        ("/**/live", "/a/live", true),
        ("/**/live", "/a//b/live", true),
        ("/**/live", "live", false),
        ("/**/live", "/alive", false),
        ("**", "/a", false),
        ("**", "a/b", true),
        ("/**", "/a/b", true),
        ("/a/**/b/*", "/a/b/c", true),
        ("/a/**/b/*", "/a/x/y/b/c", true),
        ("/a/**/b/*", "/a/b/c/d", false),
        ("/v?/**/x*y", "/v1/a/xzy", true),
        ("/v?/**/x*y", "/v1/xy", true),
        ("/a.b", "/axb", false),
        ("/(a|b)", "/a", false),
        ("/*.html", "/.html", true),
        ("/*/*", "/a/b", true),
        ("/*/*", "//", true),
        ("/é?", "/éa", true),
        ("/a**b", "/ab", true),
        ("/a**b", "/ax/yb", true),
        ("/a**b", "/a/b", false),
    ];

    #[test]
    fn a_pattern_is_read_as_the_agent_reads_it() {
        for (pattern, path, is_like) in CASES {
            assert_eq!(Ant::new(pattern).matches(path), is_like, "{pattern} {path}");
        }
    }

    proptest! {
        #[test]
        fn a_path_is_like_itself(path in "[a-z/.]{0,20}") {
            prop_assert!(Ant::new(&path).matches(&path));
        }

        #[test]
        fn never_panics_and_soon_ends(pattern in "[a*?/]{0,200}", path in ".{0,200}") {
            let _ = Ant::new(&pattern).matches(&path);
        }
    }
}
