//! Log lines as JSON: one flat object an event, with `timestamp`, `level`, and the event's own fields.
//!
//! Every request that is no sampled hit writes one, so the line is written as text at once: numbers and text as
//! they come, without a value, a serializer or, where they can do without, formats in between.

use std::fmt::{self, Write};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use super::stamp::Stamp;
use crate::clock::SystemClock;

/// Room for what an access event says as a rule.
const TYPICAL_BYTES: usize = 512;

/// The format.
#[derive(Clone, Copy, Debug)]
pub(super) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::with_capacity(TYPICAL_BYTES);
        line.push_str("{\"timestamp\":\"");
        line.push_str(Stamp::new(SystemClock::since_epoch()).as_str());
        line.push_str("\",\"level\":\"");
        line.push_str(event.metadata().level().as_str());
        line.push('"');
        let mut fields = Fields::new(&mut line);
        event.record(&mut fields);
        fields.written?;
        line.push_str("}\n");
        writer.write_str(&line)
    }
}

/// Writes fields as members of an object that has some already.
struct Fields<'a> {
    line: &'a mut String,
    written: fmt::Result,
}

impl<'a> Fields<'a> {
    const fn new(line: &'a mut String) -> Self {
        Self {
            line,
            written: Ok(()),
        }
    }

    fn member(&mut self, field: &Field, value: impl FnOnce(&mut String) -> fmt::Result) {
        let name = match field.name().as_bytes() {
            // Where a line of the `log` crate was written in a library's source.
            [b'l', b'o', b'g', b'.', ..] => return,
            // `r#type` is a field's name because `type` cannot be.
            [b'r', b'#', ..] => &field.name()[2..],
            _ => field.name(),
        };
        if self.written.is_err() {
            return;
        }
        self.line.push_str(",\"");
        self.line.push_str(name);
        self.line.push_str("\":");
        self.written = value(self.line);
    }

    fn number(&mut self, field: &Field, value: impl itoa::Integer) {
        self.member(field, |line| {
            line.push_str(itoa::Buffer::new().format(value));
            Ok(())
        });
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.member(field, |line| match thousandths(value) {
            Some(thousandths) => {
                push_thousandths(line, thousandths);
                Ok(())
            }
            None if value.is_finite() => write!(line, "{value}"),
            None => line.write_str("null"),
        });
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field, |line| {
            line.write_str(if value { "true" } else { "false" })
        });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.member(field, |line| {
            line.push('"');
            push_escaped(line, value);
            line.push('"');
            Ok(())
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.member(field, |line| {
            line.push('"');
            write!(Escaped(line), "{value:?}")?;
            line.push('"');
            Ok(())
        });
    }
}

/// A number as thousandths, if it is so many: most of what is logged with a point are milliseconds of a duration in
/// microseconds.
fn thousandths(value: f64) -> Option<u64> {
    // Where a thousandth is a whole number exactly, and has a text of its own.
    const BELOW: f64 = 1e12;
    let thousandths = (value * 1_000.0).round();
    let is_all = (0.0..BELOW).contains(&value) && thousandths / 1_000.0 == value;
    is_all.then_some(thousandths as u64)
}

fn push_thousandths(line: &mut String, thousandths: u64) {
    line.push_str(itoa::Buffer::new().format(thousandths / 1_000));
    let rest = thousandths % 1_000;
    if rest > 0 {
        line.push('.');
        // With a leading one, for the zeros.
        let mut buffer = itoa::Buffer::new();
        line.push_str(buffer.format(1_000 + rest)[1..].trim_end_matches('0'));
    }
}

/// Escapes what may not stand in a string (RFC 8259 section 7).
struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        push_escaped(self.0, text);
        Ok(())
    }
}

fn push_escaped(line: &mut String, text: &str) {
    // Looks at every byte, so that it can look at many at once: there is hardly ever anything to escape.
    let is_plain = text
        .bytes()
        .fold(true, |is_plain, byte| is_plain & !must_be_escaped(byte));
    if is_plain {
        line.push_str(text);
    } else {
        escape(line, text);
    }
}

#[cold]
fn escape(line: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            control @ ..' ' => {
                let written = write!(line, "\\u{:04x}", u32::from(control));
                debug_assert!(written.is_ok(), "a String takes everything");
            }
            plain => line.push(plain),
        }
    }
}

const fn must_be_escaped(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

#[cfg(test)]
mod tests {
    use std::{
        fmt::Write as _,
        io,
        sync::{Arc, Mutex},
    };

    use tracing::{error, info, subscriber::with_default, warn};

    use super::{Escaped, JsonLines, push_thousandths, thousandths};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(log: impl FnOnce()) -> Vec<serde_json::Value> {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .event_format(JsonLines)
            .finish();
        with_default(subscriber, log);
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
            .collect()
    }

    #[test]
    fn every_kind_of_value_is_written_as_json_has_it() {
        let nothing: Option<u64> = None;
        let lines = logged(|| {
            info!(
                text = "a \"b\" \\ \n\u{1}\u{7f}é",
                shown = %"c\td",
                told = ?"e\"f",
                minus = -1,
                large = u64::MAX,
                part = 0.25,
                none = f64::NAN,
                yes = true,
                nothing,
                r#type = "raw",
                "Said {}.",
                "so"
            );
        });
        let [line] = lines.as_slice() else {
            panic!("{lines:?}");
        };
        for (name, expected) in [
            ("level", serde_json::json!("INFO")),
            ("message", "Said so.".into()),
            ("text", "a \"b\" \\ \n\u{1}\u{7f}é".into()),
            ("shown", "c\td".into()),
            ("told", "\"e\\\"f\"".into()),
            ("minus", (-1).into()),
            ("large", u64::MAX.into()),
            ("part", 0.25.into()),
            ("none", serde_json::Value::Null),
            ("yes", true.into()),
            ("type", "raw".into()),
        ] {
            assert_eq!(line[name], expected, "{name}");
        }
        assert!(line.get("nothing").is_none());
        let timestamp = line["timestamp"].as_str().unwrap();
        assert!(
            timestamp.ends_with('Z') && timestamp.len() == 27,
            "{timestamp}"
        );
    }

    #[test]
    fn an_event_is_a_line() {
        let lines = logged(|| {
            warn!("one\ntwo");
            error!(error = %io::Error::other("broken\r\n"), "three");
        });
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1]["error"], "broken\r\n");
    }

    #[test]
    fn a_number_with_a_point_is_written_as_briefly_as_it_reads_back() {
        for value in [
            0.0,
            0.001,
            0.01,
            0.25,
            0.314,
            1.0,
            7.05,
            12.345,
            1_000.1,
            999_999_999.999,
        ] {
            let mut written = String::new();
            push_thousandths(&mut written, thousandths(value).unwrap());
            assert_eq!(written, value.to_string());
        }
        for value in [0.000_1, 0.1 + 0.2, -1.0, 1e12, f64::NAN, f64::INFINITY] {
            assert_eq!(thousandths(value), None, "{value}");
        }
    }

    #[test]
    fn what_is_escaped_reads_back_as_it_was() {
        let all: String = (0..0x300).filter_map(char::from_u32).collect();
        let mut written = String::from('"');
        Escaped(&mut written).write_str(&all).unwrap();
        written.push('"');
        assert_eq!(serde_json::from_str::<String>(&written).unwrap(), all);
    }
}
