//! Fair-share accounts, limits and pools.

use kiln_api::{
    ChangePools, LimitList, LimitView, PartyView, ProjectList, SetLimit, SetShare, UserList, WorkerView,
};
use kiln_types::PartyKind;
use reqwest::Method;

use crate::{Client, ClientError, routes};

/// Every method fails where the server cannot be reached, refuses the key, or refuses the request in its own
/// words ([`ClientError::Problem`]).
impl Client {
    /// Users, or projects: those that have jobs, or of whom something was set.
    pub async fn parties(&self, kind: PartyKind) -> Result<Vec<PartyView>, ClientError> {
        match kind {
            PartyKind::User => self.get(&routes::users()).await.map(|list: UserList| list.users),
            PartyKind::Project => self.get(&routes::projects()).await.map(|list: ProjectList| list.projects),
        }
    }

    /// # Errors
    /// If the weight is out of its bounds.
    pub async fn set_share(
        &self,
        kind: PartyKind,
        name: &str,
        share: &SetShare,
    ) -> Result<PartyView, ClientError> {
        let path = match kind {
            PartyKind::User => routes::user(name),
            PartyKind::Project => routes::project(name),
        };
        self.answered(self.request(Method::PUT, &path).json(share)).await
    }

    pub async fn limits(&self) -> Result<Vec<LimitView>, ClientError> {
        self.get(&routes::limits()).await.map(|list: LimitList| list.limits)
    }

    pub async fn set_limit(&self, name: &str, total: u32) -> Result<LimitView, ClientError> {
        self.answered(self.request(Method::PUT, &routes::limit(name)).json(&SetLimit { total })).await
    }

    /// # Errors
    /// If a job that has not ended needs it.
    pub async fn remove_limit(&self, name: &str) -> Result<(), ClientError> {
        self.tell(Method::DELETE, &routes::limit(name)).await
    }

    /// Puts a worker into pools and takes it out of others.
    pub async fn change_pools(&self, worker: &str, change: &ChangePools) -> Result<WorkerView, ClientError> {
        self.post(&routes::of_worker(worker, "pools"), change).await
    }
}
