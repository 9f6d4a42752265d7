//! What `cache` and `queue` do alike: lists page by page, one thing with its facts and fields.

use clap::Args;
use serde::de::DeserializeOwned;

use super::{
    CommandError, Reading,
    client::{Client, More},
    output::{Paint, complain, harmless, print, print_json},
};
use crate::admin::view::Field;

/// How much of a list.
#[derive(Debug, Args)]
pub(super) struct Amount {
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// All of them
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

impl Amount {
    const fn limit(&self) -> usize {
        if self.all { usize::MAX } else { self.limit }
    }
}

/// Prints a list as it comes, page by page, and says whether there is more of it.
pub(super) async fn list<T: DeserializeOwned>(
    path: &[&str],
    query: Vec<(&str, String)>,
    amount: &Amount,
    reading: &Reading,
    render: fn(&[T], Paint) -> String,
) -> Result<(), CommandError> {
    let client = Client::find(&reading.gateway)?;
    let paint = Paint::for_stdout();
    let more = client
        .list(path, query, amount.limit(), |page| {
            if reading.json {
                return page.iter().try_for_each(print_json);
            }
            let items = page.into_iter().map(|item| client.parse(item));
            let items = items.collect::<Result<Vec<T>, _>>()?;
            if items.is_empty() {
                Ok(())
            } else {
                print(&render(&items, paint))
            }
        })
        .await?;
    if more == More::NotShown {
        complain("There are more; --limit N or --all shows them.");
    }
    Ok(())
}

/// Prints one thing.
pub(super) async fn show<T: DeserializeOwned>(
    path: &[&str],
    reading: &Reading,
    render: fn(&T, Paint) -> String,
) -> Result<(), CommandError> {
    let client = Client::find(&reading.gateway)?;
    let answer = client.get(path, &[]).await?;
    if reading.json {
        return print_json(&answer);
    }
    print(&render(&client.parse(answer)?, Paint::for_stdout()))
}

/// One line for each fact.
pub(super) fn facts(facts: &[(&str, String)]) -> String {
    let lines = facts.iter();
    lines
        .map(|(name, fact)| format!("  {name:<10} {}\n", harmless(fact)))
        .collect()
}

/// One line for each field of a message.
pub(super) fn fields(fields: &[Field]) -> String {
    let lines = fields.iter();
    lines
        .map(|field| format!("  {}: {}\n", harmless(&field.name), harmless(&field.value)))
        .collect()
}
