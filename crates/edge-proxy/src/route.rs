//! The map of hosts, and the way from a path to an exposure.

use std::sync::Arc;

use papaya::HashMap;
use stagely_cache::{RouteChange, RouteFeed};
use stagely_domain::route::{Entry, Target};

/// Hosts and their entries, shared by all cores.
#[derive(Default)]
pub struct Routes(HashMap<Box<str>, Arc<Entry>>);

impl Routes {
    /// The entry of a lower-case host without port.
    pub fn find(&self, host: &str) -> Option<Arc<Entry>> {
        self.0.pin().get(host).cloned()
    }

    /// Takes an entry in, unless a newer one is known.
    pub fn put(&self, entry: Entry) {
        let (host, entry) = (entry.host.clone().into_boxed_str(), Arc::new(entry));
        self.0.pin().update_or_insert(
            host,
            |known| if known.version < entry.version { Arc::clone(&entry) } else { Arc::clone(known) },
            Arc::clone(&entry),
        );
    }

    /// How many there are, and the highest version.
    pub fn stats(&self) -> (usize, u64) {
        let pinned = self.0.pin();
        (pinned.len(), pinned.values().map(|entry| entry.version).max().unwrap_or(0))
    }

    /// Follows the feed until it ends. Hosts that a snapshot lacks are kept: Redis may just have lost them.
    pub async fn follow(&self, mut feed: RouteFeed) {
        while let Some(change) = feed.next().await {
            match change {
                RouteChange::Snapshot(entries) => entries.into_iter().for_each(|entry| self.put(entry)),
                RouteChange::Entry(entry) => self.put(entry),
            }
        }
    }
}

/// The exposure that serves a path: the longest rule that is a whole-segment prefix of it.
pub fn exposure<'t>(target: &'t Target, path: &str) -> Option<&'t str> {
    let fits = |rule: &str| {
        let rule = rule.trim_end_matches('/');
        path.strip_prefix(rule).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let best =
        target.rules.iter().filter(|rule| fits(&rule.path)).max_by_key(|rule| rule.path.trim_end_matches('/').len());
    best.map(|rule| rule.exposure.as_str())
}

#[cfg(test)]
mod tests {
    use super::exposure;
    use stagely_domain::id::MachineId;
    use stagely_domain::route::{Rule, Target};

    #[test]
    fn the_longest_whole_segment_prefix_wins() {
        let rule = |path: &str| Rule { path: path.into(), exposure: path.into() };
        let rules = vec![rule("/"), rule("/api"), rule("/api/v2/")];
        let target = Target { machine: MachineId::generate(), address: String::new(), rules };
        for (path, wanted) in
            [("/", "/"), ("/apix", "/"), ("/api", "/api"), ("/api/v1", "/api"), ("/api/v2/x", "/api/v2/")]
        {
            assert_eq!(exposure(&target, path), Some(wanted), "{path}");
        }
    }
}
