//! A killed process: what was committed is there, whole, and nothing else is served.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use super::{Directory, Fixture, body, key};

/// Set in the child, to the directory of its store.
const CHILD: &str = "HARDTACK_TEST_CRASH_DIR";

const SIZES: [usize; 4] = [100, 40_000, 1_000_000, 3_000_000];

fn expected(number: usize) -> Vec<u8> {
    let mut body = body(SIZES[number % SIZES.len()]);
    body[0] = number as u8;
    body
}

fn name(number: usize) -> String {
    format!("http://a.example/{number}")
}

/// The child: publishes without end, and says after each flush how far it came. Does nothing in an ordinary test run.
#[test]
fn child_that_is_killed() {
    let Some(dir) = std::env::var_os(CHILD) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let dir = Directory::of_somebody_else(dir);
        let fixture = Fixture::open(dir, |_| {}).await.unwrap();
        for number in 0.. {
            fixture.publish(&key(&name(number)), expected(number));
            if number % 5 == 4 {
                fixture.store.flush().await.unwrap();
                writeln!(std::io::stderr(), "done {number}").unwrap();
            }
        }
    });
}

/// Runs the child until it has said that so many are on disk, then kills it in the middle of whatever it is doing.
fn kill_after(dir: &Directory, until: usize) -> usize {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "store::tests::crash::child_that_is_killed",
            "--nocapture",
        ])
        .env(CHILD, dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let done = lines
        .map_while(Result::ok)
        .filter_map(|line| line.strip_prefix("done ")?.parse().ok())
        .find(|done| *done >= until)
        .expect("the child goes on until it is killed");
    child.kill().unwrap();
    child.wait().unwrap();
    done
}

#[tokio::test]
async fn after_a_kill_everything_that_was_committed_is_there() {
    for until in [4, 24, 49] {
        let dir = Directory::temporary();
        let done = kill_after(&dir, until);
        let fixture = Fixture::open(dir, |_| {}).await.unwrap();
        for number in 0..done + 20 {
            let found = fixture.body(&key(&name(number))).await;
            if number <= done {
                assert!(found.is_some(), "{number} of {done} is lost");
            }
            assert!(
                found.is_none_or(|found| found == expected(number)),
                "{number}"
            );
        }
        assert_eq!(fixture.errors("corrupt"), 0);
        fixture.publish(&key(&name(0)), "again");
        fixture.forget_memory().await;
        assert_eq!(fixture.body(&key(&name(0))).await.unwrap(), b"again");
    }
}
