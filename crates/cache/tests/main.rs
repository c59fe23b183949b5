//! The copy in a real Redis.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use fred::interfaces::StreamsInterface;
use fred::prelude::{Builder, ClientLike, Config};
use stagely_cache::{Cache, RouteChange, RouteFeed};
use stagely_domain::clock::{Clock, SystemClock};
use stagely_domain::id::EnvironmentId;
use stagely_domain::route::{Entry, Notice, State};
use tokio_util::sync::CancellationToken;

#[expect(clippy::disallowed_methods, reason = "tests are configured by the environment")]
fn url() -> String {
    std::env::var("STAGELY_TEST_REDIS_URL")
        .expect("STAGELY_TEST_REDIS_URL is not set: run `cargo xtask test integration`")
}

async fn cache() -> Cache {
    Cache::connect(&url(), &format!("test:{}:", uuid::Uuid::new_v4().simple())).await.unwrap()
}

fn entry(host: &str, version: u64, state: State) -> Entry {
    let environment = EnvironmentId::generate();
    Entry { host: host.to_owned(), version, environment, state, target: None, notice: Notice::default() }
}

async fn next(feed: &mut RouteFeed) -> RouteChange {
    tokio::time::timeout(Duration::from_secs(10), feed.next()).await.expect("a change in ten seconds").unwrap()
}

#[tokio::test]
async fn an_older_version_never_replaces_a_newer_one() {
    let cache = cache().await;
    let new = entry("a.example", 7, State::Ready);
    assert_eq!(cache.publish_routes(std::slice::from_ref(&new)).await.unwrap(), 1);
    assert_eq!(cache.publish_routes(&[entry("a.example", 6, State::Gone)]).await.unwrap(), 0);
    assert_eq!(cache.route("a.example").await.unwrap(), Some(new));
}

#[tokio::test]
async fn a_reader_gets_a_snapshot_and_then_every_change() {
    let cache = cache().await;
    let first = entry("a.example", 1, State::Waiting);
    cache.publish_routes(std::slice::from_ref(&first)).await.unwrap();
    let shutdown = CancellationToken::new();
    let mut feed = cache.subscribe_routes(shutdown.clone());
    assert_eq!(next(&mut feed).await, RouteChange::Snapshot(vec![first]));
    // Longer than one look of the reader lasts: a quiet time is no change.
    assert!(tokio::time::timeout(Duration::from_secs(5), feed.next()).await.is_err());
    for version in 2..20 {
        let change = entry("a.example", version, State::Ready);
        cache.publish_routes(std::slice::from_ref(&change)).await.unwrap();
        assert_eq!(next(&mut feed).await, RouteChange::Entry(change));
    }
    shutdown.cancel();
    assert_eq!(feed.next().await, None);
}

#[tokio::test]
async fn a_flushed_redis_is_made_whole_and_readers_follow() {
    let cache = cache().await;
    let kept = entry("a.example", 1, State::Ready);
    cache.rebuild_routes(std::slice::from_ref(&kept), 1).await.unwrap();
    let mut feed = cache.subscribe_routes(CancellationToken::new());
    assert_eq!(next(&mut feed).await, RouteChange::Snapshot(vec![kept.clone()]));
    assert_eq!(cache.routes_marker().await.unwrap(), Some(1));

    // Another test's keys are none of ours: only this prefix is lost.
    cache.lose_everything_for_tests().await.unwrap();
    assert_eq!(cache.routes_marker().await.unwrap(), None);
    let newer = entry("b.example", 2, State::Ready);
    cache.rebuild_routes(&[kept.clone(), newer.clone()], 2).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        match next(&mut feed).await {
            RouteChange::Entry(entry) => seen.push(entry),
            RouteChange::Snapshot(entries) => seen = entries,
        }
    }
    seen.sort_by(|a, b| a.host.cmp(&b.host));
    assert_eq!(seen, [kept.clone(), newer]);
    // What Postgres does not have any more is forgotten, unless it is newer than the look.
    cache.publish_routes(&[entry("c.example", 9, State::Ready)]).await.unwrap();
    cache.rebuild_routes(&[kept], 3).await.unwrap();
    assert_eq!(cache.route("b.example").await.unwrap(), None);
    assert!(cache.route("c.example").await.unwrap().is_some());
}

#[tokio::test]
async fn readers_follow_a_redis_that_was_lost_and_whose_clock_went_back() {
    let prefix = format!("test:{}:", uuid::Uuid::new_v4().simple());
    let cache = Cache::connect(&url(), &prefix).await.unwrap();
    let first = entry("a.example", 1, State::Waiting);
    cache.publish_routes(std::slice::from_ref(&first)).await.unwrap();
    // The feed's last entry is of a time that the next Redis will not reach.
    let redis = Config::from_url(&url()).map(|config| Builder::from_config(config).build().unwrap()).unwrap();
    redis.init().await.unwrap();
    let text = serde_json::to_string(&first).unwrap();
    redis
        .xadd::<(), _, _, _, _>(format!("{prefix}route-feed"), false, None, "99999999999999-0", ("entry", text))
        .await
        .unwrap();
    let mut feed = cache.subscribe_routes(CancellationToken::new());
    assert_eq!(next(&mut feed).await, RouteChange::Snapshot(vec![first.clone()]));

    cache.lose_everything_for_tests().await.unwrap();
    let newer = entry("a.example", 2, State::Ready);
    cache.rebuild_routes(std::slice::from_ref(&newer), 2).await.unwrap();
    assert_eq!(next(&mut feed).await, RouteChange::Snapshot(vec![newer]));
}

#[tokio::test]
async fn visits_and_wake_ups_stay_until_they_are_acted_on() {
    let (cache, id) = (cache().await, EnvironmentId::generate());
    let now = SystemClock.now();
    cache.touch_seen(&[id], now).await.unwrap();
    let seen = cache.list_seen().await.unwrap();
    assert_eq!((seen[0].0, seen[0].1.timestamp_millis()), (id, now.timestamp_millis()));
    cache.forget_seen(&[id]).await.unwrap();
    assert_eq!(cache.list_seen().await.unwrap(), []);
    cache.request_wake(id).await.unwrap();
    cache.request_wake(id).await.unwrap();
    assert_eq!(cache.list_wakes().await.unwrap(), [id]);
    cache.forget_wakes(&[id]).await.unwrap();
    assert_eq!(cache.list_wakes().await.unwrap(), []);
}
