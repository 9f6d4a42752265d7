//! Stored responses without number.

use super::{Next::Unharmed, Stage, connect, get, told};
use crate::support::{Answer, Client, Gateway, Origin, Reply, reverse_to};

pub(super) async fn variants(stage: &mut Stage) {
    stage.section(
        "Bombs of variants, and floods",
        "An attacker makes as many stored responses as possible. The next client asks for a page that was stored before.",
    );
    let page = stage.gullible();
    stage.gateway.client.get(&page).await;
    let names: Vec<String> = (0..40).map(|index| format!("X-{index}")).collect();
    let path = stage.path();
    stage.origin.on(
        &path,
        Reply::ok("page")
            .cache_control("max-age=300")
            .header("Vary", &names.join(", ")),
    );
    stage
        .row(
            "`Vary` with 40 fields",
            &get(&path),
            &get(&page),
            Unharmed("page"),
        )
        .await;
    stage.origin.on(
        &path,
        Reply::ok("page")
            .cache_control("max-age=300")
            .header("Vary", "*"),
    );
    stage
        .row("`Vary: *`", &get(&path), &get(&page), Unharmed("page"))
        .await;

    let path = stage.path();
    stage.origin.on(
        &path,
        Reply::ok("page")
            .cache_control("max-age=300")
            .header("Vary", "X-A"),
    );
    let mut connection = connect(stage).await;
    let variant = |nth: usize| get(&path).header("X-A", &format!("{nth}{}", "a".repeat(1_000)));
    for nth in 0..1_000 {
        assert_eq!(connection.ask(&variant(nth)).await.status, 200);
    }
    let mut hits = 0;
    for nth in (960..1_000).rev() {
        hits += usize::from(connection.ask(&variant(nth)).await.says("hit"));
    }
    assert_eq!(hits, 32, "the variants that are kept");
    let after = stage.gateway.client.get(&page).await;
    assert!(after.says("hit"));
    stage.note(&[
        "1,000 values of one kilobyte for one field of `Vary`",
        "200",
        &told(&after),
        "1,008 requests",
        "unharmed: 32 variants are kept",
    ]);

    let (requests, hot) = flood(&stage.origin).await;
    stage.note(&[
        "600 targets of 8 KiB, with 1 MiB of memory and 4 MiB of disk",
        "200",
        &told(&hot),
        &requests,
        "unharmed: what is asked for often stays",
    ]);
}

/// A flood of targets that nobody asks for again, past a page that everybody asks for: how often the origin was asked
/// for it, and the last answer.
async fn flood(origin: &Origin) -> (String, Answer) {
    let small = "[storage]\nmemory = \"1MiB\"\ndisk = \"4MiB\"\nmax_object = \"256KiB\"\n";
    let config = format!("{small}{}", reverse_to(origin.address()));
    let gateway = Gateway::start(&config).await;
    origin.on("/hot", Reply::ok("page").cache_control("max-age=300"));
    for nth in 0..600 {
        origin.on(
            &format!("/flood/{nth}"),
            Reply::ok(vec![b'x'; 8 << 10]).cache_control("max-age=300"),
        );
    }
    let client = Client::new(gateway.client.address);
    let (mut attacker, mut users) = (client.connect().await, client.connect().await);
    let mut last = users.ask(&get("/hot")).await;
    for nth in 0..600 {
        assert_eq!(
            attacker.ask(&get(&format!("/flood/{nth}"))).await.status,
            200
        );
        last = users.ask(&get("/hot")).await;
    }
    let requests = origin.seen_at("/hot").len();
    assert_eq!(requests, 1, "the page was evicted");
    gateway.stop().await;
    ("1 request for the page".to_owned(), last)
}
