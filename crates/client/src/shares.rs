//! Fair-share accounts, limits and pools.

use kiln_api::{
    AccountView, ChangePools, LimitList, LimitView, ProjectList, SetLimit, SetShare, UserList, WorkerView,
};
use kiln_types::AccountKind;
use reqwest::Method;

use crate::{Client, ClientError, routes};

impl Client {
    /// Returns the users or the projects that have jobs, or whose share was set.
    pub async fn accounts(&self, kind: AccountKind) -> Result<Vec<AccountView>, ClientError> {
        match kind {
            AccountKind::User => self.get(&routes::users()).await.map(|list: UserList| list.users),
            AccountKind::Project => {
                self.get(&routes::projects()).await.map(|list: ProjectList| list.projects)
            }
        }
    }

    pub async fn set_share(
        &self,
        kind: AccountKind,
        name: &str,
        share: &SetShare,
    ) -> Result<AccountView, ClientError> {
        let path = match kind {
            AccountKind::User => routes::user(name),
            AccountKind::Project => routes::project(name),
        };
        self.answered(self.request(Method::PUT, &path).json(share)).await
    }

    pub async fn limits(&self) -> Result<Vec<LimitView>, ClientError> {
        self.get(&routes::limits()).await.map(|list: LimitList| list.limits)
    }

    pub async fn set_limit(&self, name: &str, total: u32) -> Result<LimitView, ClientError> {
        self.answered(self.request(Method::PUT, &routes::limit(name)).json(&SetLimit { total })).await
    }

    /// Removes a limit that no open job needs.
    pub async fn remove_limit(&self, name: &str) -> Result<(), ClientError> {
        self.tell(Method::DELETE, &routes::limit(name)).await
    }

    /// Puts a worker into pools and takes it out of others.
    pub async fn change_pools(&self, worker: &str, change: &ChangePools) -> Result<WorkerView, ClientError> {
        self.post(&routes::of_worker(worker, "pools"), change).await
    }
}
