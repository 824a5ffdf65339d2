//! Where an HTTP/1 body ends: by length, by chunks, or with the connection.
use super::super::Piece;
use super::HEAD_LIMIT;

/// Longest line with a chunk's size, extensions included, in bytes.
const SIZE_LINE_LIMIT: u32 = 4096;

/// What is left of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// So many bytes.
    Length(u64),
    /// Chunks (`Transfer-Encoding: chunked`).
    Chunked(Chunked),
    /// All that comes.
    UntilClose,
}

/// Where in a chunked body the next byte lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunked {
    /// In the line with a chunk's size.
    Size { value: Option<u64>, digits_over: bool, line: u32 },
    /// In a chunk's data; so many bytes are left.
    Data(u64),
    /// In the line end after a chunk's data; so many of its two bytes were seen.
    DataEnd(u8),
    /// In the trailers.
    Trailer { line: u32, total: u32 },
}

/// What became of a body after a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The piece is used up, the body is not.
    More,
    /// The body is over; the rest of the piece belongs to the next message.
    Done,
    /// Framing is missing or wrong: where the body ends is not known any more.
    Broken,
}

impl Body {
    pub fn chunked() -> Body {
        Body::Chunked(Chunked::size())
    }

    pub fn feed(&mut self, piece: &mut Piece<'_>) -> Progress {
        match self {
            Body::UntilClose => {
                piece.skip_all();
                Progress::More
            }
            Body::Length(left) => {
                *left -= piece.skip(*left);
                if *left == 0 { Progress::Done } else { Progress::More }
            }
            Body::Chunked(chunked) => chunked.feed(piece),
        }
    }
}

impl Chunked {
    fn size() -> Chunked {
        Chunked::Size { value: None, digits_over: false, line: 0 }
    }

    fn feed(&mut self, piece: &mut Piece<'_>) -> Progress {
        while !piece.is_empty() {
            let next = match (&mut *self, &*piece) {
                (Chunked::Data(left), _) => {
                    *left -= piece.skip(*left);
                    if *left > 0 {
                        return Progress::More;
                    }
                    Some(Chunked::DataEnd(0))
                }
                // The two bytes after a chunk's data say nothing, so they may be missing.
                (Chunked::DataEnd(seen), Piece::Hole(_)) => {
                    let taken = piece.skip(u64::from(2 - *seen));
                    *seen += u8::try_from(taken).unwrap_or(2);
                    if *seen < 2 {
                        return Progress::More;
                    }
                    Some(Chunked::size())
                }
                (_, Piece::Hole(_)) => return Progress::Broken,
                (_, Piece::Bytes(bytes)) => {
                    let Some(byte) = bytes.first().copied() else { return Progress::More };
                    piece.skip(1);
                    match self.framing(byte) {
                        Step::Stay => None,
                        Step::To(next) => Some(next),
                        Step::Done => return Progress::Done,
                        Step::Broken => return Progress::Broken,
                    }
                }
            };
            if let Some(next) = next {
                *self = next;
            }
        }
        Progress::More
    }

    /// One byte that is not data.
    fn framing(&mut self, byte: u8) -> Step {
        match self {
            Chunked::Size { value, digits_over, line } => {
                *line += 1;
                if *line > SIZE_LINE_LIMIT {
                    return Step::Broken;
                }
                match (byte, *value) {
                    (b'\n', Some(0)) => Step::To(Chunked::Trailer { line: 0, total: 0 }),
                    (b'\n', Some(size)) => Step::To(Chunked::Data(size)),
                    (b'\n', None) => Step::Broken,
                    (_, Some(_)) if *digits_over => Step::Stay,
                    (b'\r' | b';' | b' ' | b'\t', Some(_)) => {
                        *digits_over = true;
                        Step::Stay
                    }
                    (_, so_far) => match char::from(byte).to_digit(16) {
                        Some(digit) => match so_far.unwrap_or(0).checked_mul(16) {
                            Some(high) => {
                                *value = Some(high | u64::from(digit));
                                Step::Stay
                            }
                            None => Step::Broken,
                        },
                        None => Step::Broken,
                    },
                }
            }
            Chunked::DataEnd(seen) => match (byte, *seen) {
                (b'\n', _) => Step::To(Chunked::size()),
                (b'\r', 0) => {
                    *seen = 1;
                    Step::Stay
                }
                _ => Step::Broken,
            },
            Chunked::Trailer { line, total } => {
                *total += 1;
                match byte {
                    b'\n' if *line == 0 => return Step::Done,
                    b'\n' => *line = 0,
                    b'\r' => {}
                    _ => *line += 1,
                }
                if *total as usize > HEAD_LIMIT { Step::Broken } else { Step::Stay }
            }
            Chunked::Data(_) => Step::Stay,
        }
    }
}

enum Step {
    Stay,
    To(Chunked),
    Done,
    Broken,
}
