//! `queue export` and `queue import`: queued writes as lines of JSON, whole.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

use clap::Args;

use super::{
    CommandError, Exit, Gateway, Reading,
    client::Client,
    human,
    output::{complain, harmless, print, print_json},
    queue::Filters,
};
use crate::admin::view::queue::Imported;

// As much as the gateway takes at once without making anybody wait long.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_LINES: u64 = 256;

/// Which queued writes to write out, and where.
#[derive(Debug, Args)]
pub struct Export {
    /// Into this file instead of to standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    gateway: Gateway,
}

/// What to read in.
#[derive(Debug, Args)]
pub struct Import {
    /// An export, or `-` for standard input
    file: PathBuf,
    #[command(flatten)]
    reading: Reading,
}

impl Export {
    pub(super) async fn execute(self) -> Result<(), CommandError> {
        let client = Client::find(&self.gateway)?;
        let mut sink = Sink::open(self.output.as_deref())?;
        let mut lines = Lines::default();
        client
            .download(&["queue", "export"], &self.filters.query(), |piece| {
                lines.count(piece);
                sink.write(piece)
            })
            .await?;
        sink.finish()?;
        let count = human::count(lines.whole, "queued write");
        complain(&format!("{count} exported, {} damaged.", lines.damaged));
        match lines.damaged {
            0 => Ok(()),
            _ => Err(CommandError::Told(Exit::Failed)),
        }
    }
}

impl Import {
    pub(super) async fn execute(self) -> Result<(), CommandError> {
        let client = Client::find(&self.reading.gateway)?;
        let mut input = open(&self.file)?;
        let mut total = Imported::default();
        let mut before = 0;
        loop {
            let (batch, lines) = self.batch(&mut input)?;
            if lines == 0 {
                break;
            }
            let answer = client.upload(&["queue", "import"], batch).await?;
            let mut imported: Imported = client.parse(answer)?;
            for refusal in &mut imported.refusals {
                refusal.line += before;
                complain(&format!(
                    "line {}: {}",
                    refusal.line,
                    harmless(&refusal.why)
                ));
            }
            before += lines;
            total.imported += imported.imported;
            total.known += imported.known;
            total.refused += imported.refused;
            total.refusals.append(&mut imported.refusals);
        }
        self.tell(&total)
    }

    /// Lines that belong into one request, and how many.
    fn batch(&self, input: &mut dyn BufRead) -> Result<(Vec<u8>, u64), CommandError> {
        let (mut batch, mut lines) = (Vec::new(), 0);
        while batch.len() < BATCH_BYTES && lines < BATCH_LINES {
            let read = input.read_until(b'\n', &mut batch);
            if read.map_err(|source| unusable("read", &self.file, source))? == 0 {
                break;
            }
            lines += 1;
        }
        Ok((batch, lines))
    }

    fn tell(&self, total: &Imported) -> Result<(), CommandError> {
        if self.reading.json {
            print_json(&serde_json::to_value(total).expect("strings and numbers are JSON"))?;
        } else {
            let imported = human::count(total.imported, "queued write");
            let (known, refused) = (total.known, total.refused);
            print(&format!(
                "{imported} imported, {known} were there already, {refused} refused\n"
            ))?;
        }
        match total.refused {
            0 => Ok(()),
            _ => Err(CommandError::Told(Exit::Failed)),
        }
    }
}

/// Where an export goes.
enum Sink {
    Output,
    File { file: File, path: PathBuf },
}

impl Sink {
    fn open(path: Option<&Path>) -> Result<Self, CommandError> {
        let Some(path) = path else {
            return Ok(Self::Output);
        };
        let file = File::create(path).map_err(|source| unusable("write", path, source))?;
        Ok(Self::File {
            file,
            path: path.to_owned(),
        })
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), CommandError> {
        match self {
            Self::Output => io::stdout().write_all(piece).map_err(CommandError::Output),
            Self::File { file, path } => file
                .write_all(piece)
                .map_err(|source| unusable("write", path, source)),
        }
    }

    /// An export may be what is left of a queue: it is on disk before it is said to be.
    fn finish(self) -> Result<(), CommandError> {
        match self {
            Self::Output => io::stdout().flush().map_err(CommandError::Output),
            Self::File { file, path } => file
                .sync_all()
                .map_err(|source| unusable("write", &path, source)),
        }
    }
}

/// Counts the lines of an export as it comes.
#[derive(Default)]
struct Lines {
    whole: u64,
    damaged: u64,
    begin: Vec<u8>,
}

impl Lines {
    /// Of a line only its beginning matters: whether it is a write, or says that one is damaged.
    fn count(&mut self, piece: &[u8]) {
        const WRITE: &[u8] = b"{\"format\"";
        for byte in piece {
            if *byte != b'\n' {
                if self.begin.len() < WRITE.len() {
                    self.begin.push(*byte);
                }
                continue;
            }
            if self.begin == WRITE {
                self.whole += 1;
            } else {
                self.damaged += 1;
            }
            self.begin.clear();
        }
    }
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, CommandError> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let file = File::open(path).map_err(|source| unusable("read", path, source))?;
    Ok(Box::new(BufReader::new(file)))
}

fn unusable(attempt: &'static str, path: &Path, source: io::Error) -> CommandError {
    CommandError::File {
        attempt,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::Lines;

    #[test]
    fn lines_are_counted_however_they_come() {
        let mut lines = Lines::default();
        for piece in [
            "{\"for",
            "mat\":1}\n{\"error\":\"x\"}",
            "\n",
            "{\"format\":1}\n",
        ] {
            lines.count(piece.as_bytes());
        }
        assert_eq!((lines.whole, lines.damaged), (2, 1));
    }
}
