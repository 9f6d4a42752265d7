//! One write tried again, dropped or declared done; and deliveries held back.

use super::{AMBIGUOUS, BY, Bench, NOW, REJECTED};
use crate::{
    policy::Timestamp,
    queue::{
        Dead, Done, ItemId, Repeat, State,
        operate::{Edit, Filter, OperateError},
    },
};

#[tokio::test]
async fn a_retried_write_is_due_at_once_and_lives_anew() {
    for state in [
        State::Waiting,
        REJECTED,
        AMBIGUOUS,
        State::Dead(Dead::Attempts),
    ] {
        let bench = Bench::new().await;
        let before = bench
            .write_as("/a", state, |item| {
                item.ambiguous_since = Some(NOW);
                item.next_at = Timestamp::from_secs(9_000_000);
                item.floor_until = Some(item.next_at);
            })
            .await;
        bench.clock.step_secs(100);
        let now = Timestamp::from_secs(1_000_100);
        bench.queue.retry(before.id, BY).await.unwrap();
        let after = bench.item(before.id).await;
        assert_eq!(
            (after.state, after.next_at, after.floor_until),
            (State::Waiting, now, None)
        );
        assert_eq!((after.attempts, after.counted_attempts()), (50, 0));
        assert_eq!(after.waits_since(), now);
        assert!(
            after.may_be_repeated(now),
            "{state:?}: the operator's word counts"
        );
        let due = bench.queue.index().next_due_at(&after.origin);
        assert_eq!(due, Some(now));
        assert_eq!(
            bench.audited().await,
            [("retry".to_owned(), Some(before.id))]
        );
    }
}

#[tokio::test]
async fn where_repeating_does_no_harm_the_earlier_attempt_is_remembered() {
    let bench = Bench::new().await;
    let before = bench
        .write_as("/a", State::Dead(Dead::Attempts), |item| {
            item.method = "DELETE".to_owned();
            item.repeat = Repeat::Harmless;
            item.ambiguous_since = Some(NOW);
        })
        .await;
    bench.queue.retry(before.id, BY).await.unwrap();
    // A 404 now means that it is done.
    assert_eq!(bench.item(before.id).await.ambiguous_since, Some(NOW));
}

#[tokio::test]
async fn what_somebody_works_on_and_what_has_ended_is_left_alone() {
    let bench = Bench::new().await;
    let busy = bench.write("/a", State::Queued).await;
    bench.queue.index().claim(busy.id, |_| true).unwrap();
    let done = bench.write("/b", AMBIGUOUS).await;
    bench
        .queue
        .resolve(done.id, Some("it was there"), BY)
        .await
        .unwrap();
    let queued = bench.write("/c", State::Queued).await;
    let unknown = ItemId::from_bytes([7; 16]);

    let refusal = async |id| match bench.queue.retry(id, BY).await.unwrap_err() {
        OperateError::InUse => "in use",
        OperateError::NotAllowed { state, .. } => state.as_str(),
        OperateError::Unknown { .. } => "unknown",
        error => panic!("{error}"),
    };
    assert_eq!(refusal(busy.id).await, "in use");
    assert_eq!(refusal(done.id).await, "done");
    assert_eq!(refusal(queued.id).await, "queued");
    assert_eq!(refusal(unknown).await, "unknown");
    let edited = bench.queue.edit(queued.id, Edit::default(), BY).await;
    assert!(matches!(edited, Err(OperateError::NotAllowed { .. })));
    // Nobody has kept a claim.
    assert!(bench.queue.index().claim(queued.id, |_| true).is_ok());
    assert_eq!(
        bench.audited().await.len(),
        1,
        "what was refused changed nothing"
    );
}

#[tokio::test]
async fn a_dropped_write_is_gone_and_frees_its_lane() {
    let bench = Bench::new().await;
    let head = bench.write("/a", REJECTED).await;
    let next = bench.write("/b", State::Queued).await;
    assert_eq!(bench.queue.blocked_by(next.id), Some(head.id));
    bench.queue.drop_item(head.id, BY).await.unwrap();
    assert_eq!(bench.queue.item(head.id).await.unwrap(), None);
    assert_eq!(bench.queue.blocked_by(next.id), None);
    let page = bench.queue.audit(None, 10).await.unwrap();
    assert_eq!(page.items[0].action, "drop");
    assert!(
        page.items[0].detail.contains("http://api.example/a"),
        "{page:?}"
    );
    let bench = bench.reopened().await;
    assert_eq!(bench.list(Filter::default()).await, ["/b"]);
}

#[tokio::test]
async fn a_resolved_write_keeps_its_receipt() {
    let bench = Bench::new().await;
    let write = bench.write("/a", AMBIGUOUS).await;
    bench
        .queue
        .resolve(write.id, Some("seen at the origin"), BY)
        .await
        .unwrap();
    let bench = bench.reopened().await;
    let after = bench.item(write.id).await;
    assert_eq!(after.state, State::Done(Done::Resolved));
    assert_eq!(after.remark.as_deref(), Some("seen at the origin"));
    assert_eq!(bench.queue.summary().bytes, 0);
}

#[tokio::test]
async fn pauses_are_kept_across_restarts_and_taken_back_one_by_one() {
    let bench = Bench::new().await;
    let places = |bench: &Bench| {
        let pauses = bench.queue.summary().pauses.into_iter();
        pauses
            .map(|pause| pause.origin.map(|origin| origin.to_string()))
            .collect::<Vec<_>>()
    };
    let api = || Some("api".to_owned());
    bench
        .queue
        .pause(None, Some("drill".to_owned()), BY)
        .await
        .unwrap();
    bench.queue.pause(Some("api"), None, BY).await.unwrap();
    bench
        .queue
        .pause(Some("http://a.example"), None, BY)
        .await
        .unwrap();
    bench.queue.pause(Some("api"), None, BY).await.unwrap();
    let bench = bench.reopened().await;
    let forward = || Some("http://a.example".to_owned());
    assert_eq!(places(&bench), [None, forward(), api()]);
    assert_eq!(
        bench.queue.summary().pauses[0].reason.as_deref(),
        Some("drill")
    );
    bench.queue.resume(None, BY).await.unwrap();
    assert_eq!(places(&bench), [forward(), api()]);
    bench
        .queue
        .resume(Some("http://a.example"), BY)
        .await
        .unwrap();
    bench.queue.resume(Some("api"), BY).await.unwrap();
    let bench = bench.reopened().await;
    assert!(places(&bench).is_empty());
    let actions = bench.audited().await;
    assert_eq!(actions.len(), 7, "{actions:?}");
}
