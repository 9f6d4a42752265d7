//! Log lines as JSON: one flat object an event, with `timestamp`, `level`, and the event's own fields.
//!
//! Every request that is no sampled hit writes one, so the line is written straight into the subscriber's buffer: numbers
//! and text as they come, without a value or a serializer in between.

use std::fmt::{self, Write};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

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
        writer.write_str("{\"timestamp\":\"")?;
        SystemTime.format_time(&mut writer)?;
        writer.write_str("\",\"level\":\"")?;
        writer.write_str(event.metadata().level().as_str())?;
        writer.write_str("\"")?;
        let mut fields = Fields::new(&mut writer);
        event.record(&mut fields);
        fields.written?;
        writer.write_str("}\n")
    }
}

/// Writes fields as members of an object that has some already.
struct Fields<'a, W> {
    writer: &'a mut W,
    written: fmt::Result,
}

impl<'a, W: Write> Fields<'a, W> {
    const fn new(writer: &'a mut W) -> Self {
        Self {
            writer,
            written: Ok(()),
        }
    }

    fn member(&mut self, field: &Field, value: impl FnOnce(&mut W) -> fmt::Result) {
        // Where a line of the `log` crate was written in a library's source.
        if field.name().starts_with("log.") {
            return;
        }
        let writer = &mut *self.writer;
        let write = || {
            writer.write_str(",\"")?;
            // `r#type` is a field's name because `type` cannot be.
            writer.write_str(field.name().trim_start_matches("r#"))?;
            writer.write_str("\":")?;
            value(writer)
        };
        if self.written.is_ok() {
            self.written = write();
        }
    }

    fn text(&mut self, field: &Field, text: fmt::Arguments<'_>) {
        self.member(field, |writer| {
            writer.write_char('"')?;
            match text.as_str() {
                Some(text) => Escaped(writer).write_str(text)?,
                None => Escaped(writer).write_fmt(text)?,
            }
            writer.write_char('"')
        });
    }
}

impl<W: Write> Visit for Fields<'_, W> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.member(field, |writer| {
            if value.is_finite() {
                write!(writer, "{value}")
            } else {
                writer.write_str("null")
            }
        });
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field, |writer| {
            writer.write_str(itoa::Buffer::new().format(value))
        });
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, |writer| {
            writer.write_str(itoa::Buffer::new().format(value))
        });
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field, |writer| {
            writer.write_str(if value { "true" } else { "false" })
        });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.member(field, |writer| {
            writer.write_char('"')?;
            Escaped(writer).write_str(value)?;
            writer.write_char('"')
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format_args!("{value:?}"));
    }
}

/// Escapes what may not stand in a string (RFC 8259 section 7).
struct Escaped<'a, W>(&'a mut W);

impl<W: Write> Write for Escaped<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.bytes().position(must_be_escaped) {
            let (before, from) = rest.split_at(at);
            self.0.write_str(before)?;
            // All that must be escaped is ASCII, so a byte is a character.
            match from.as_bytes()[0] {
                b'"' => self.0.write_str("\\\"")?,
                b'\\' => self.0.write_str("\\\\")?,
                b'\n' => self.0.write_str("\\n")?,
                b'\r' => self.0.write_str("\\r")?,
                b'\t' => self.0.write_str("\\t")?,
                control => write!(self.0, "\\u{control:04x}")?,
            }
            rest = &from[1..];
        }
        self.0.write_str(rest)
    }
}

const fn must_be_escaped(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

#[cfg(test)]
mod tests {
    use std::{
        fmt::Write as _,
        io,
        sync::{Arc, Mutex},
    };

    use tracing::{error, info, subscriber::with_default, warn};

    use super::{Escaped, JsonLines};

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
    fn what_is_escaped_reads_back_as_it_was() {
        let all: String = (0..0x300).filter_map(char::from_u32).collect();
        let mut written = String::from('"');
        Escaped(&mut written).write_str(&all).unwrap();
        written.push('"');
        assert_eq!(serde_json::from_str::<String>(&written).unwrap(), all);
    }
}
