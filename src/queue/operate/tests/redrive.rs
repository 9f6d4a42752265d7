//! Many writes set on their way again: plans, and running them.

use std::time::Duration;

use super::{BY, Bench, REJECTED, states};
use crate::queue::{
    Item, OnStuck, State,
    operate::{Filter, OperateError, Operation, OperationState},
};

#[tokio::test]
async fn a_plan_is_frozen_and_runs_once() {
    let bench = Bench::new().await;
    let on_stuck = |item: &mut Item| item.on_stuck = OnStuck::Continue;
    let mut planned = Vec::new();
    for number in 0..100 {
        let write = bench
            .write_as(&format!("/{number}"), REJECTED, on_stuck)
            .await;
        planned.push(write.id);
    }
    bench.write("/queued", State::Queued).await;
    let plan = bench.queue.redrive_plan(Filter::default()).await.unwrap();
    assert_eq!((plan.total, plan.state), (100, OperationState::Planned));
    assert_eq!(plan.sample, planned[..20]);
    assert_eq!(
        bench.list(states(&["dead"])).await.len(),
        100,
        "only planned"
    );

    let late = bench.write_as("/late", REJECTED, on_stuck).await;
    bench.queue.drop_item(planned[3], BY).await.unwrap();
    bench.queue.redrive_begin(&plan.id, BY).unwrap();
    assert!(
        bench.queue.redrive_begin(&plan.id, BY).is_err(),
        "it runs already"
    );
    bench.queue.redrive_run(&plan.id, BY).await;
    let Operation {
        state,
        total,
        done,
        failed,
        failures,
        ..
    } = bench.queue.operation(&plan.id).unwrap();
    assert_eq!(
        (state, total, done, failed),
        (OperationState::Ended, 100, 99, 1)
    );
    assert_eq!(failures[0].0, planned[3]);
    assert_eq!(
        bench.item(late.id).await.state,
        REJECTED,
        "it is not in the plan"
    );
    assert_eq!(bench.list(states(&["waiting"])).await.len(), 99);
    let actions: Vec<_> = bench
        .audited()
        .await
        .into_iter()
        .map(|(action, _)| action)
        .collect();
    assert_eq!(
        actions,
        ["drop", "redrive", "redrive"],
        "not one for each write"
    );
}

#[tokio::test]
async fn what_cannot_be_redriven_is_refused() {
    let bench = Bench::new().await;
    for state in ["queued", "sending", "done", "cancelled"] {
        let plan = bench.queue.redrive_plan(states(&["dead", state])).await;
        assert!(matches!(plan, Err(OperateError::Invalid(_))), "{state}");
    }
    assert!(bench.queue.redrive_plan(states(&["waiting"])).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn there_are_four_plans_at_most_and_old_ones_are_forgotten() {
    let bench = Bench::new().await;
    for _ in 0..4 {
        bench.queue.redrive_plan(Filter::default()).await.unwrap();
    }
    let fifth = bench.queue.redrive_plan(Filter::default()).await;
    assert!(matches!(
        fifth,
        Err(OperateError::TooManyPlans { limit: 4 })
    ));
    tokio::time::advance(Duration::from_secs(600)).await;
    bench.queue.redrive_plan(Filter::default()).await.unwrap();
}

/// It was only forgotten once somebody else planned: until then it could be run, a day later.
#[tokio::test(start_paused = true)]
async fn a_plan_that_has_expired_is_not_run() {
    let bench = Bench::new().await;
    let plan = bench.queue.redrive_plan(Filter::default()).await.unwrap();
    tokio::time::advance(Duration::from_secs(10 * 60 - 1)).await;
    assert!(bench.queue.operation(&plan.id).is_ok());
    tokio::time::advance(Duration::from_secs(1)).await;
    let begun = bench.queue.redrive_begin(&plan.id, BY);
    assert!(matches!(begun, Err(OperateError::Unknown { .. })));
}
