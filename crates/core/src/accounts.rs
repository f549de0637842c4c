//! Fair share between projects, and between the users of each: stride scheduling at two levels.
//!
//! Whoever is handed work advances by its time over its weight, and the least advanced is next. Who had nothing to do
//! starts again level with the others: a share that was not used is not owed.

use std::collections::BTreeMap;

/// A user of a project, by the place in [`Accounts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AccountId(u32);

/// What a person sets of a project or a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Of two that have work, one of twice the weight gets twice the time; 1 to [`Share::MAX_WEIGHT`].
    pub weight: u32,
    /// Slots that it may hold at once.
    pub max_slots: Option<u32>,
}

impl Share {
    pub const DEFAULT_WEIGHT: u32 = 100;
    pub const MAX_WEIGHT: u32 = 10_000;
}

impl Default for Share {
    fn default() -> Self {
        Self { weight: Self::DEFAULT_WEIGHT, max_slots: None }
    }
}

/// A project or a user.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Party {
    Project(String),
    User(String),
}

/// How far each has advanced: microseconds of slots at the default weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    project: u64,
    project_place: u32,
    user: u64,
    account: AccountId,
}

impl Turn {
    /// Whether this one's turn comes at most `ms` of share later than that one's.
    pub fn is_within(self, ms: u64, earlier: Self) -> bool {
        if self.project_place == earlier.project_place {
            self.user <= earlier.user.saturating_add(ms.saturating_mul(1000))
        } else {
            self.project <= earlier.project.saturating_add(ms.saturating_mul(1000))
        }
    }
}

/// The accounts of the jobs that the core holds. With its last job an account is forgotten, and with their last account a
/// project and a user.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    accounts: Slab<Account>,
    projects: Slab<Project>,
    users: Slab<User>,
    by_names: BTreeMap<(u32, u32), AccountId>,
    projects_by_name: BTreeMap<String, u32>,
    users_by_name: BTreeMap<String, u32>,
    /// Other than the default one; also of those that have no job.
    shares: BTreeMap<Party, Share>,
}

/// Values by their places; a place that is free is taken again first.
#[derive(Debug)]
struct Slab<T> {
    places: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    fn insert(&mut self, value: T) -> u32 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            (self.places.len() - 1) as u32
        });
        self.places[place as usize] = Some(value);
        place
    }

    fn get(&self, place: u32) -> Option<&T> {
        self.places.get(place as usize)?.as_ref()
    }

    fn get_mut(&mut self, place: u32) -> Option<&mut T> {
        self.places.get_mut(place as usize)?.as_mut()
    }

    fn remove(&mut self, place: u32) -> Option<T> {
        let value = self.places.get_mut(place as usize)?.take()?;
        self.free.push(place);
        Some(value)
    }

    fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.places).filter_map(|(place, value)| Some((place, value.as_ref()?)))
    }

    fn values(&self) -> impl Iterator<Item = &T> {
        self.places.iter().flatten()
    }
}

#[derive(Debug)]
struct Project {
    name: String,
    share: Share,
    advanced: u64,
    /// Jobs that have not ended.
    jobs: u32,
    slots: u32,
    accounts: u32,
}

#[derive(Debug)]
struct User {
    name: String,
    share: Share,
    slots: u32,
    accounts: u32,
}

#[derive(Debug)]
struct Account {
    project: u32,
    user: u32,
    advanced: u64,
    /// Jobs that have not ended.
    jobs: u32,
    /// Jobs that the core holds.
    held: u32,
}

impl Accounts {
    pub fn set(&mut self, party: Party, share: Share) {
        let weight = share.weight.clamp(1, Share::MAX_WEIGHT);
        let share = Share { weight, ..share };
        match &party {
            Party::Project(name) => {
                let known = self.projects_by_name.get(name);
                if let Some(project) = known.and_then(|place| self.projects.get_mut(*place)) {
                    project.share = share;
                }
            }
            Party::User(name) => {
                let known = self.users_by_name.get(name);
                if let Some(user) = known.and_then(|place| self.users.get_mut(*place)) {
                    user.share = share;
                }
            }
        }
        if share == Share::default() {
            self.shares.remove(&party);
        } else {
            self.shares.insert(party, share);
        }
    }

    /// The account of a new job, made where there is none. To be given back by [`Accounts::close`].
    pub fn open(&mut self, project: &str, user: &str) -> AccountId {
        let project = self.project(project);
        let user = self.user(user);
        let id = self.by_names.get(&(project, user)).copied().unwrap_or_else(|| {
            let id =
                AccountId(self.accounts.insert(Account { project, user, advanced: 0, jobs: 0, held: 0 }));
            self.by_names.insert((project, user), id);
            if let Some(project) = self.projects.get_mut(project) {
                project.accounts += 1;
            }
            if let Some(user) = self.users.get_mut(user) {
                user.accounts += 1;
            }
            id
        });
        if let Some(account) = self.accounts.get_mut(id.0) {
            account.held += 1;
        }
        id
    }

    fn project(&mut self, name: &str) -> u32 {
        if let Some(place) = self.projects_by_name.get(name) {
            return *place;
        }
        let share = self.shares.get(&Party::Project(name.to_owned())).copied().unwrap_or_default();
        let project = Project { name: name.to_owned(), share, advanced: 0, jobs: 0, slots: 0, accounts: 0 };
        let place = self.projects.insert(project);
        self.projects_by_name.insert(name.to_owned(), place);
        place
    }

    fn user(&mut self, name: &str) -> u32 {
        if let Some(place) = self.users_by_name.get(name) {
            return *place;
        }
        let share = self.shares.get(&Party::User(name.to_owned())).copied().unwrap_or_default();
        let place = self.users.insert(User { name: name.to_owned(), share, slots: 0, accounts: 0 });
        self.users_by_name.insert(name.to_owned(), place);
        place
    }

    /// One of its jobs is forgotten.
    pub fn close(&mut self, id: AccountId) {
        let Some(account) = self.accounts.get_mut(id.0) else { return };
        account.held = account.held.saturating_sub(1);
        if account.held > 0 {
            return;
        }
        let (project, user) = (account.project, account.user);
        self.accounts.remove(id.0);
        self.by_names.remove(&(project, user));
        if let Some(known) = self.projects.get_mut(project) {
            known.accounts -= 1;
            if known.accounts == 0 {
                self.projects_by_name.remove(&known.name);
                self.projects.remove(project);
            }
        }
        if let Some(known) = self.users.get_mut(user) {
            known.accounts -= 1;
            if known.accounts == 0 {
                self.users_by_name.remove(&known.name);
                self.users.remove(user);
            }
        }
    }

    fn of(&mut self, id: AccountId) -> Option<(&mut Account, &mut Project, &mut User)> {
        let account = self.accounts.get_mut(id.0)?;
        let project = self.projects.get_mut(account.project)?;
        let user = self.users.get_mut(account.user)?;
        Some((account, project, user))
    }

    /// One of its jobs is there, or goes on.
    pub fn enter(&mut self, id: AccountId) {
        let at_work = self.projects.values().filter(|known| known.jobs > 0);
        let level = at_work.map(|known| known.advanced).min();
        let number = self.accounts.get(id.0).map(|account| account.project);
        let beside = self.accounts.values().filter(|known| Some(known.project) == number && known.jobs > 0);
        let beside = beside.map(|known| known.advanced).min();
        let Some((account, project, _)) = self.of(id) else { return };
        if project.jobs == 0 {
            project.advanced = project.advanced.max(level.unwrap_or(0));
        }
        if account.jobs == 0 {
            account.advanced = account.advanced.max(beside.unwrap_or(0));
        }
        project.jobs += 1;
        account.jobs += 1;
    }

    /// One of its jobs has ended.
    pub fn leave(&mut self, id: AccountId) {
        let Some((account, project, _)) = self.of(id) else { return };
        account.jobs = account.jobs.saturating_sub(1);
        project.jobs = project.jobs.saturating_sub(1);
    }

    /// It was handed so many milliseconds of a slot; negative to take some back.
    pub fn charge(&mut self, id: AccountId, ms: i64) {
        let us = ms.saturating_mul(1000 * i64::from(Share::DEFAULT_WEIGHT));
        let weighed = |weight: u32| us / i64::from(weight);
        let Some((account, project, user)) = self.of(id) else { return };
        account.advanced = account.advanced.saturating_add_signed(weighed(user.share.weight));
        project.advanced = project.advanced.saturating_add_signed(weighed(project.share.weight));
    }

    pub fn turn(&self, id: AccountId) -> Turn {
        let account = self.accounts.get(id.0);
        let project_place = account.map_or(0, |account| account.project);
        Turn {
            project: self.projects.get(project_place).map_or(0, |project| project.advanced),
            project_place,
            user: account.map_or(0, |account| account.advanced),
            account: id,
        }
    }

    pub fn hold_slot(&mut self, id: AccountId) {
        let Some((_, project, user)) = self.of(id) else { return };
        project.slots += 1;
        user.slots += 1;
    }

    /// Whether that made room below a cap.
    pub fn free_slot(&mut self, id: AccountId) -> bool {
        let was_full = self.is_full(id);
        let Some((_, project, user)) = self.of(id) else { return false };
        project.slots = project.slots.saturating_sub(1);
        user.slots = user.slots.saturating_sub(1);
        was_full && !self.is_full(id)
    }

    fn parties(&self, id: AccountId) -> Option<(&Project, &User)> {
        let account = self.accounts.get(id.0)?;
        Some((self.projects.get(account.project)?, self.users.get(account.user)?))
    }

    /// Whether the project or the user holds all the slots that it may.
    pub fn is_full(&self, id: AccountId) -> bool {
        let full = |share: Share, slots| share.max_slots.is_some_and(|cap| slots >= cap);
        self.parties(id)
            .is_some_and(|(project, user)| full(project.share, project.slots) || full(user.share, user.slots))
    }

    /// Which of the two it is, with its cap.
    pub fn full_party(&self, id: AccountId) -> Option<(Party, u32)> {
        let (project, user) = self.parties(id)?;
        let full = |share: Share, slots| share.max_slots.filter(|cap| slots >= *cap);
        full(project.share, project.slots)
            .map(|cap| (Party::Project(project.name.clone()), cap))
            .or_else(|| full(user.share, user.slots).map(|cap| (Party::User(user.name.clone()), cap)))
    }

    /// Slots that each project and user with a job holds now.
    pub fn slots(&self) -> BTreeMap<Party, u32> {
        let projects = self.projects.values().map(|known| (Party::Project(known.name.clone()), known.slots));
        let users = self.users.values().map(|known| (Party::User(known.name.clone()), known.slots));
        projects.chain(users).collect()
    }

    /// Panics where jobs are miscounted, or an account is kept that no job has. For tests.
    pub fn check(&self, held: &BTreeMap<AccountId, u32>) {
        let counted: BTreeMap<AccountId, u32> =
            self.accounts.iter().map(|(id, account)| (AccountId(id), account.held)).collect();
        assert_eq!(*held, counted, "accounts are kept for other jobs than there are");
        let accounts: u32 = self.projects.values().map(|project| project.accounts).sum();
        assert_eq!(accounts as usize, self.accounts.values().count(), "a project miscounts its accounts");
        let accounts: u32 = self.users.values().map(|user| user.accounts).sum();
        assert_eq!(accounts as usize, self.accounts.values().count(), "a user miscounts its accounts");
        let kept = self.projects.values().map(|p| p.accounts).chain(self.users.values().map(|u| u.accounts));
        assert!(kept.min() != Some(0), "a project or a user without an account is kept");
        let indexed = (self.projects_by_name.len(), self.users_by_name.len(), self.by_names.len());
        let there =
            (self.projects.values().count(), self.users.values().count(), self.accounts.values().count());
        assert_eq!(indexed, there, "what is there by name is not what is there");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out frames of 10 ms; how many each account got.
    fn run(accounts: &mut Accounts, ids: &[AccountId], frames: usize) -> Vec<usize> {
        let mut got = vec![0; ids.len()];
        for _ in 0..frames {
            let next = (0..ids.len()).min_by_key(|index| accounts.turn(ids[*index])).unwrap();
            accounts.charge(ids[next], 10);
            got[next] += 1;
        }
        got
    }

    #[test]
    fn time_goes_by_weight_between_projects_and_evenly_between_users_of_one() {
        let mut accounts = Accounts::default();
        accounts.set(Party::Project("film".into()), Share { weight: 300, max_slots: None });
        let ids = [("film", "ada"), ("film", "bob"), ("ad", "ada")]
            .map(|(project, user)| accounts.open(project, user));
        ids.iter().for_each(|id| accounts.enter(*id));
        assert_eq!(run(&mut accounts, &ids, 400), [150, 150, 100]);
    }

    #[test]
    fn who_comes_back_is_owed_nothing() {
        let mut accounts = Accounts::default();
        let (ada, bob) = (accounts.open("", "ada"), accounts.open("", "bob"));
        accounts.enter(ada);
        run(&mut accounts, &[ada], 1000);
        accounts.enter(bob);
        assert_eq!(run(&mut accounts, &[ada, bob], 100), [50, 50]);
    }

    #[test]
    fn a_cap_is_the_projects_or_the_users() {
        let mut accounts = Accounts::default();
        accounts.set(Party::User("ada".into()), Share { max_slots: Some(2), ..Share::default() });
        let (film, ad) = (accounts.open("film", "ada"), accounts.open("ad", "ada"));
        accounts.hold_slot(film);
        assert!(!accounts.is_full(ad));
        accounts.hold_slot(ad);
        assert_eq!(accounts.full_party(film), Some((Party::User("ada".into()), 2)));
        assert!(accounts.free_slot(ad));
        assert!(!accounts.is_full(film));
    }

    #[test]
    fn what_no_job_has_is_forgotten_and_what_a_person_set_is_not() {
        let mut accounts = Accounts::default();
        let capped = Share { max_slots: Some(1), ..Share::default() };
        accounts.set(Party::User("ada".into()), capped);
        for project in 0..1000 {
            let name = format!("film {project}");
            let (ada, bob) = (accounts.open(&name, "ada"), accounts.open(&name, "bob"));
            assert_eq!(accounts.open(&name, "ada"), ada, "two jobs have one account");
            accounts.enter(ada);
            accounts.hold_slot(ada);
            assert!(accounts.is_full(ada) && !accounts.is_full(bob), "its share is known again");
            accounts.free_slot(ada);
            accounts.leave(ada);
            accounts.close(ada);
            accounts.check(&[(ada, 1), (bob, 1)].into());
            accounts.close(bob);
            accounts.close(ada);
            accounts.check(&BTreeMap::new());
        }
        assert!(accounts.slots().is_empty());
        accounts.set(Party::User("ada".into()), Share::default());
        assert!(accounts.shares.is_empty(), "what is as by default is nothing that is set");
    }
}
