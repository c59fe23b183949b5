//! Repositories, commits and pull requests, as people make them.

use serde_json::Value;

use super::state::{Pull, Repo};
use super::{GitHost, git};

impl GitHost {
    /// A repository with one commit on `main`. The App is installed for its owner.
    ///
    /// # Panics
    /// When git fails; so do the others here.
    pub async fn create_repo(&self, repo: &str, files: &[(&str, &[u8])]) -> String {
        git::init(self.0.directory.path(), repo).await;
        self.remember(repo);
        self.commit(repo, "main", None, files, "Begin").await
    }

    /// A fork of `repo` with all that is in it.
    pub async fn create_fork(&self, repo: &str, fork: &str) {
        git::fork(self.0.directory.path(), repo, fork).await;
        self.remember(fork);
    }

    /// A commit on top of `branch`, which begins at `from` if it is new. Files are added to those that are there.
    /// Open pull requests of the branch move on, and the webhook is told.
    pub async fn commit(
        &self,
        repo: &str,
        branch: &str,
        from: Option<&str>,
        files: &[(&str, &[u8])],
        message: &str,
    ) -> String {
        let sha = git::commit(self.0.directory.path(), repo, branch, from, files, message).await;
        let mut open: Vec<(String, i64)> = Vec::new();
        for (name, known) in &mut self.state().repos {
            for pull in
                known.pulls.values_mut().filter(|pull| pull.open && pull.head_repo == repo && pull.branch == branch)
            {
                pull.sha.clone_from(&sha);
                open.push((name.clone(), pull.number));
            }
        }
        for (name, number) in open {
            git::pin(self.0.directory.path(), &name, number, repo, &sha).await;
            self.deliver_pull_request(&name, number, "synchronize").await;
        }
        sha
    }

    /// A commit without a file, on a branch that no pull request has.
    pub async fn delete(&self, repo: &str, branch: &str, from: &str, name: &str) {
        git::delete(self.0.directory.path(), repo, branch, from, name).await;
    }

    /// Opens a pull request of `branch` against `main`.
    pub async fn open_pull_request(&self, repo: &str, branch: &str, title: &str) -> i64 {
        self.open(repo, repo, branch, title).await
    }

    /// Opens a pull request of a fork's `branch` against `main`.
    pub async fn open_fork_pull_request(&self, repo: &str, fork: &str, branch: &str, title: &str) -> i64 {
        self.open(repo, fork, branch, title).await
    }

    async fn open(&self, repo: &str, head_repo: &str, branch: &str, title: &str) -> i64 {
        let root = self.0.directory.path();
        let sha = git::head(root, head_repo, branch).await;
        let base_sha = git::head(root, repo, "main").await;
        let number = {
            let mut state = self.state();
            let id = state.next_id();
            let author = head_repo.split('/').next().unwrap_or_default().to_owned();
            let repo = state.repo(repo);
            let number = i64::try_from(repo.pulls.len()).unwrap_or(0) + 1;
            let pull = Pull {
                number,
                id,
                title: title.to_owned(),
                author,
                head_repo: head_repo.to_owned(),
                branch: branch.to_owned(),
                sha: sha.clone(),
                base: "main".to_owned(),
                base_sha,
                open: true,
                ..Pull::default()
            };
            repo.pulls.insert(number, pull);
            number
        };
        git::pin(root, repo, number, head_repo, &sha).await;
        self.deliver_pull_request(repo, number, "opened").await;
        number
    }

    /// Closes a pull request.
    pub async fn close_pull_request(&self, repo: &str, number: i64) {
        self.close_silently(repo, number);
        self.deliver_pull_request(repo, number, "closed").await;
    }

    /// Closes a pull request, and nobody is told: a lost webhook.
    pub fn close_silently(&self, repo: &str, number: i64) {
        self.change(repo, number, |pull| pull.open = false);
    }

    /// Opens a closed pull request again.
    pub async fn reopen_pull_request(&self, repo: &str, number: i64) {
        self.change(repo, number, |pull| pull.open = true);
        self.deliver_pull_request(repo, number, "reopened").await;
    }

    /// Merges a pull request, in git too, which closes it.
    ///
    /// # Panics
    /// When it conflicts with its base.
    pub async fn merge_pull_request(&self, repo: &str, number: i64) {
        let (base, sha) = self
            .state()
            .repo(repo)
            .pulls
            .get(&number)
            .map(|pull| (pull.base.clone(), pull.sha.clone()))
            .expect("a pull request");
        git::merge(self.0.directory.path(), repo, &base, &sha).await.expect("no conflict");
        self.change(repo, number, |pull| (pull.open, pull.merged) = (false, true));
        self.deliver_pull_request(repo, number, "closed").await;
    }

    /// Changes a pull request without telling.
    pub fn change(&self, repo: &str, number: i64, change: impl FnOnce(&mut Pull)) {
        change(self.state().repo(repo).pulls.get_mut(&number).expect("a pull request"));
    }

    /// GitHub's JSON of a pull request.
    pub(super) fn pull_json(&self, repo: &str, number: i64, is_listed: bool) -> Option<Value> {
        let (id, pull, head_id) = {
            let mut state = self.state();
            let known = state.repo(repo);
            let (id, pull) = (known.id, known.pulls.get(&number)?.clone());
            let head_id = state.repos.get(&pull.head_repo).map_or(0, |repo| repo.id);
            (id, pull, head_id)
        };
        Some(self.answers().pull((repo, id), head_id, &pull, is_listed))
    }

    fn remember(&self, repo: &str) {
        let mut state = self.state();
        let id = state.next_id();
        state.repos.insert(repo.to_owned(), Repo { id, ..Repo::default() });
        let owner = repo.split('/').next().unwrap_or_default().to_owned();
        let installation = state.next_id();
        state.installations.entry(owner).or_insert(installation);
    }
}
