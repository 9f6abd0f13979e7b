//! What WASIX runs on, made in the app's own process. Threads are started only for what needs them.

use std::fmt;
use std::future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::runtime::{Builder, Handle};
use virtual_net::host::LocalNetworking;
use virtual_net::{DynVirtualNetworking, UnsupportedVirtualNetworking};
use wasmer::{Engine, Imports, Instance, Memory, Module, Store, StoreMut};
use wasmer_wasix::runtime::resolver::{MultiSource, Source};
use wasmer_wasix::runtime::task_manager::tokio::TokioTaskManager;
use wasmer_wasix::runtime::task_manager::{TaskWasm, VirtualTaskManager};
use wasmer_wasix::runtime::{InstantiationState, TaintReason};
use wasmer_wasix::{Runtime, WasiThreadError};

use crate::descriptors::Descriptors;
use crate::hooks::{self, Hooked};

/// WASIX's tasks and timers, on one thread that starts when the first is asked for; each thread of the guest is one more.
#[derive(Clone, Debug, Default)]
pub struct Tasks(Arc<OnceLock<TokioTaskManager>>);

impl Tasks {
    pub fn handle(&self) -> Handle {
        self.manager().runtime_handle()
    }

    fn manager(&self) -> &TokioTaskManager {
        self.0.get_or_init(|| TokioTaskManager::new(start_reactor()))
    }
}

fn start_reactor() -> Handle {
    let runtime = Builder::new_current_thread().enable_all().build().expect("an epoll descriptor");
    let handle = runtime.handle().clone();
    let name = thread::Builder::new().name("wasix".into()).stack_size(256 << 10);
    name.spawn(move || runtime.block_on(future::pending::<()>())).expect("a thread");
    handle
}

impl VirtualTaskManager for Tasks {
    /// WASIX makes timers that it then does not wait for: the thread starts with the first that is.
    fn sleep_now(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>> {
        let tasks = self.clone();
        Box::pin(async move { tasks.manager().sleep_now(time).await })
    }

    fn task_shared(
        &self,
        task: Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send + 'static>,
    ) -> Result<(), WasiThreadError> {
        self.manager().task_shared(task)
    }

    fn task_wasm(&self, task: TaskWasm) -> Result<(), WasiThreadError> {
        self.manager().task_wasm(task)
    }

    fn task_dedicated(&self, task: Box<dyn FnOnce() + Send + 'static>) -> Result<(), WasiThreadError> {
        self.manager().task_dedicated(task)
    }

    fn thread_parallelism(&self) -> Result<usize, WasiThreadError> {
        self.manager().thread_parallelism()
    }
}

/// One app's runtime.
pub struct Host {
    engine: Engine,
    tasks: Tasks,
    task_manager: Arc<dyn VirtualTaskManager>,
    network: bool,
    networking: OnceLock<DynVirtualNetworking>,
    descriptors: Arc<Descriptors>,
    trapped: AtomicBool,
}

impl Host {
    /// :param network: whether sockets of the process's network namespace may be used
    pub fn new(engine: Engine, tasks: Tasks, descriptors: Descriptors, network: bool) -> Self {
        let task_manager = Arc::new(tasks.clone());
        let descriptors = Arc::new(descriptors);
        Self { engine, tasks, task_manager, network, networking: OnceLock::new(), descriptors, trapped: false.into() }
    }

    /// Whether a program of this runtime has trapped.
    pub fn trapped(&self) -> bool {
        self.trapped.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Host").field("network", &self.network).finish_non_exhaustive()
    }
}

impl Runtime for Host {
    fn networking(&self) -> &DynVirtualNetworking {
        self.networking.get_or_init(|| -> DynVirtualNetworking {
            if !self.network {
                return Arc::new(UnsupportedVirtualNetworking::default());
            }
            let handle = self.tasks.handle();
            let _entered = handle.enter();
            Arc::new(LocalNetworking::new())
        })
    }

    fn task_manager(&self) -> &Arc<dyn VirtualTaskManager> {
        &self.task_manager
    }

    /// Programs are files of the container; no registry of packages is asked.
    fn source(&self) -> Arc<dyn Source + Send + Sync> {
        Arc::new(MultiSource::new())
    }

    fn engine(&self) -> Engine {
        self.engine.clone()
    }

    fn new_store(&self) -> Store {
        Store::new(self.engine.clone())
    }

    fn on_taint(&self, reason: TaintReason) {
        if matches!(reason, TaintReason::RuntimeError(_)) {
            self.trapped.store(true, Ordering::Relaxed);
        }
    }

    fn prepare_imports(
        &self,
        _module: &Module,
        store: &mut StoreMut<'_>,
        imports: &mut Imports,
    ) -> anyhow::Result<InstantiationState> {
        Ok(InstantiationState::new(hooks::replace(imports, store, &self.descriptors)))
    }

    fn configure_new_instance(
        &self,
        _module: &Module,
        store: &mut StoreMut<'_>,
        instance: &Instance,
        imported_memory: Option<&Memory>,
        state: InstantiationState,
    ) -> anyhow::Result<()> {
        state.take::<Hooked>()?.instantiated(store, instance, imported_memory);
        Ok(())
    }
}
