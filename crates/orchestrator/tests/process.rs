//! A process of the orchestrator: every reconciler, on a runtime of its own. To kill it is to drop the runtime: no
//! task gets another turn, and Postgres sees its connections closed.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use stagely_domain::clock::SystemClock;
use stagely_domain::secret::Secret;
use stagely_forge::GitHub;
use stagely_forge::github::Auth;
use stagely_forge::testing::{CLONE_TOKEN, TOKEN};
use stagely_orchestrator::Config;
use stagely_orchestrator::testing::Reconcilers;
use stagely_reconcile::{Claim, ErrorClass, Options, Reconciler, Step, StepError, WorkStore, Worker};
use stagely_runtime::config::Settings;
use stagely_runtime::{Kit, Peer};
use stagely_store::work::PgWork;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::gate::Gate;
use crate::git_host;
use crate::outside::{GatedCloud, GatedForge};

/// What every process of a stack is started with.
pub struct Setup {
    pub settings: Settings,
    pub config: Config,
    pub cloud: Arc<GatedCloud>,
    pub gate: Arc<Gate>,
    pub breaks: Arc<Breaks>,
}

/// Which awaits of the reconcilers are their last: every so many, counted over all of them.
#[derive(Default)]
pub struct Breaks(Mutex<Count>);

#[derive(Default)]
struct Count {
    stride: usize,
    until_next: usize,
    broken: usize,
}

impl Breaks {
    /// Breaks after `first` awaits, and then each time after `stride`; 0 for never.
    pub fn arm(&self, first: usize, stride: usize) {
        *self.count() = Count { stride, until_next: first, broken: 0 };
    }

    /// How many activations were dropped since then.
    pub fn broken(&self) -> usize {
        self.count().broken
    }

    fn is_due(&self) -> bool {
        let mut count = self.count();
        if count.stride == 0 {
            return false;
        }
        if count.until_next > 0 {
            count.until_next -= 1;
            return false;
        }
        count.until_next = count.stride - 1;
        count.broken += 1;
        true
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reconciler whose activations are dropped where they wait.
struct Breaking<R> {
    inner: R,
    breaks: Arc<Breaks>,
}

#[async_trait]
impl<R: Reconciler> Reconciler for Breaking<R> {
    const KIND: &'static str = R::KIND;

    async fn reconcile(&self, claim: &Claim) -> Result<Step, StepError> {
        let mut activation = pin!(self.inner.reconcile(claim));
        let until_dropped = poll_fn(|context| match activation.as_mut().poll(context) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending if self.breaks.is_due() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        let dropped = || Err(StepError::new(ErrorClass::Transient, "reconcile", "dropped where it waited"));
        until_dropped.await.unwrap_or_else(dropped)
    }
}

/// Starts one; tells whether it was killed, once it is no more.
pub fn start(setup: Arc<Setup>, owner: String, stop: CancellationToken) -> oneshot::Receiver<bool> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let was_killed = runtime.block_on(async {
            tokio::select! {
                () = run(&setup, owner) => false,
                () = setup.gate.deaths.notified() => true,
                () = stop.cancelled() => false,
            }
        });
        drop(runtime);
        let _ = sender.send(was_killed);
    });
    receiver
}

/// The reconcilers of another process, of which nothing runs by itself.
pub async fn open(setup: &Setup, shutdown: &CancellationToken) -> Reconcilers {
    let kit = Kit::bind(&setup.settings, Peer::Orchestrator, shutdown.clone()).await.unwrap();
    let (api, git) = (git_host::host().api_url(), git_host::host().git_url("127.0.0.1"));
    let auth = Auth::Token { token: Secret::new(TOKEN), clone_token: Secret::new(CLONE_TOKEN) };
    let forge = GitHub::new(&api, &git, auth, Arc::new(SystemClock)).unwrap();
    let forge = Arc::new(GatedForge { inner: forge, gate: Arc::clone(&setup.gate) });
    let cloud = Arc::clone(&setup.cloud);
    Reconcilers::open(setup.config.clone(), &kit, cloud, forge).await.unwrap()
}

async fn run(setup: &Setup, owner: String) {
    let shutdown = CancellationToken::new();
    let reconcilers = open(setup, &shutdown).await;
    let work = PgWork::new(reconcilers.store());
    let workers = TaskTracker::new();
    workers.spawn(Arc::clone(&work).listen(shutdown.clone()));
    let options = Options {
        lease: Duration::from_secs(6),
        renew_every: Duration::from_secs(2),
        poll: Duration::from_millis(500),
        ..Options::new(owner)
    };
    let crew = Crew { breaks: &setup.breaks, work, options, workers: &workers, shutdown };
    crew.hire(reconcilers.environments());
    crew.hire(reconcilers.images());
    crew.hire(reconcilers.inbox());
    crew.hire(reconcilers.machines());
    crew.hire(reconcilers.posts());
    crew.hire(reconcilers.routes());
    crew.hire(reconcilers.sweeps());
    reconcilers.wake_all().await.unwrap();
    workers.close();
    workers.wait().await;
}

struct Crew<'s> {
    breaks: &'s Arc<Breaks>,
    work: Arc<PgWork>,
    options: Options,
    workers: &'s TaskTracker,
    shutdown: CancellationToken,
}

impl Crew<'_> {
    fn hire<R: Reconciler>(&self, inner: R) {
        let reconciler = Breaking { inner, breaks: Arc::clone(self.breaks) };
        let work = Arc::clone(&self.work) as Arc<dyn WorkStore>;
        self.workers.spawn(Worker::new(reconciler, work, self.options.clone()).run(self.shutdown.clone()));
    }
}
