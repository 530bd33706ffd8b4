/*
 * people.c
 *
 * Who asks and for what: identities and the catalogue of roles, access
 * profiles and entitlements, made from the seed.  Their names hold what names
 * hold in life: accents, other scripts, emoji, quotes, and what breaks
 * careless quoting.
 */
#include "sandbox.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NPEOPLE 2000
#define NTHINGS 520
#define NROLES 120
#define NPROFILES 160

static Person people[NPEOPLE];
static Thing things[NTHINGS];

static const char *const first_names[] = {
	"Aaliyah", "Björn", "Chloé", "Dmitri", "Eleni", "Fatima", "Giorgos", "Hana",
	"Ingrid", "Jürgen", "Kwame", "Łucja", "Mateo", "Nguyễn", "Oluwaseun", "Priya",
	"Quentin", "Rosa", "Søren", "Tomás", "Uma", "Valentina", "Wei", "Ximena",
	"Yusuf", "Zoë", "Alan", "Grace", "Edgar", "Ada", "Barbara", "Linus"
};

static const char *const last_names[] = {
	"O'Connor", "van der Berg", "García Márquez", "Müller", "Kowalski", "Nakamura",
	"Smith-Jones", "D'Angelo", "Hernández", "Ivanov", "Johansson", "Okafor",
	"Petrović", "Quispe", "Rossi", "Sørensen", "Tanaka", "Ünal", "Weiß", "Zhang",
	"Lovelace", "Hopper", "Codd", "Turing"
};

static const char *const odd_people[] = {
	"山田 太郎", "Иван Петров", "محمد علي", "김민준", "🦄 Admin-Bot", "Ame\xcc\x81lie Du\xcc\x88rer",
	"Robert\"); DROP TABLE students;--", "Back\\slash O\\'Hare", "100% Percy %s %n", "<b>Bold</b> & Sons"
};

static const char *const odd_things[] = {
	"Données confidentielles — lecture", "経理部 承認者", "👩‍💻 Developer (prod) 🚀",
	"Say \"yes\" to everything", "C:\\Shares\\Finance$", "50% off_role %d", "</script><script>alert(1)</script>",
	"CN=Domain Admins,OU=Groups,DC=corp,DC=example", "cafe\xcc\x81 & cre\xcc\x80me", "'; DROP ROLE x; --",
	" leading and trailing ", "Ключевой доступ", "صلاحية المدير", "a=b&c=d<e>'f'", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝕽𝖔𝖑𝖊",
	"Tab\there and a line\nbreak"
};

static const char *const areas[] = {
	"Payroll", "Accounts Payable", "CRM", "Data Warehouse", "Source Control", "HR Core",
	"Trading Desk", "Badge Office", "Mainframe", "Help Desk", "Treasury", "Legal Hold",
	"Claims", "Warehouse 7", "Campus Wi-Fi", "Patient Records"
};

static const char *const grades[] = {
	"Reader", "Editor", "Approver", "Administrator", "Auditor", "Operator", "Break-glass", "Contractor"
};

static const char *const sources[] = {
	"Active Directory", "SAP ECC", "Salesforce", "Workday", "Azure AD – München", "Oracle EBS",
	"GitHub Enterprise", "RACF"
};

#define PICK(list, rng) ((list)[random_below(&(rng), sizeof(list) / sizeof((list)[0]))])
#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

static void
random_id(uint64_t *rng, char out[33])
{
	uint64_t	hi = random_next(rng),
				lo = random_next(rng);

	snprintf(out, 33, "2c9180%010llx%016llx", (unsigned long long) (hi >> 24),
			 (unsigned long long) lo);
}

static void
make_person(int n, uint64_t *rng)
{
	Person	   *p = &people[n];
	char		name[128];

	random_id(rng, p->id);
	if (n == ADMIN_PERSON)
		snprintf(name, sizeof(name), "Sandbox Admin");
	else if (n == SELF_PERSON)
		snprintf(name, sizeof(name), "Sam Self");
	else if (n % 40 == 7)
		snprintf(name, sizeof(name), "%s", odd_people[(size_t) (n / 40) % COUNT(odd_people)]);
	else
	{
		const char *first = PICK(first_names, *rng);

		snprintf(name, sizeof(name), "%s %s", first, PICK(last_names, *rng));
	}
	p->name = xstrdup(name);
	p->number = intern(p->id);
	p->name_number = intern(p->name);
}

static void
make_thing(int n, uint64_t *rng)
{
	Thing	   *t = &things[n];
	char		name[160];
	const char *source = PICK(sources, *rng);

	random_id(rng, t->id);
	t->source = source;
	t->type = n < NROLES ? "ROLE" : n < NROLES + NPROFILES ? "ACCESS_PROFILE" : "ENTITLEMENT";
	if (n % 8 == 5)
		snprintf(name, sizeof(name), "%s", odd_things[(size_t) (n / 8) % COUNT(odd_things)]);
	else
	{
		const char *area = PICK(areas, *rng);

		snprintf(name, sizeof(name), "%s %s %d", area, PICK(grades, *rng), n);
	}
	t->name = xstrdup(name);
	t->number = intern(t->id);
	t->name_number = intern(t->name);
}

void
people_init(void)
{
	uint64_t	rng = options.seed ^ UINT64_C(0x70656f706c65);

	for (int i = 0; i < NPEOPLE; i++)
		make_person(i, &rng);
	for (int i = 0; i < NTHINGS; i++)
		make_thing(i, &rng);
}

int
people_count(void)
{
	return NPEOPLE;
}

int
things_count(void)
{
	return NTHINGS;
}

int
roles_count(void)
{
	return NROLES;
}

const Person *
person(int n)
{
	return &people[n];
}

const Thing *
thing(int n)
{
	return &things[n];
}

const Person *
person_by_id(const char *id)
{
	uint32_t	n = intern_find(id);

	for (int i = 0; n && i < NPEOPLE; i++)
		if (people[i].number == n)
			return &people[i];
	return NULL;
}

const Thing *
thing_by_id(const char *id)
{
	uint32_t	n = intern_find(id);

	for (int i = 0; n && i < NTHINGS; i++)
		if (things[i].number == n)
			return &things[i];
	return NULL;
}

/* A row of the collection "identities". */
void
person_json(Text *t, int n)
{
	const Person *p = &people[n];

	text_printf(t, "{\"id\":\"%s\",\"name\":", p->id);
	text_json(t, p->name, JSON_PLAIN);
	text_printf(t, ",\"alias\":\"user%04d\",\"emailAddress\":\"user%04d@example.com\","
				"\"identityStatus\":\"%s\",\"managerRef\":", n, n,
				n % 17 == 5 ? "LOCKED" : "ACTIVE");
	if (n < 2)
		text_puts(t, "null");
	else
	{
		text_printf(t, "{\"type\":\"IDENTITY\",\"id\":\"%s\",\"name\":", people[n / 8].id);
		text_json(t, people[n / 8].name, JSON_PLAIN);
		text_puts(t, "}");
	}
	text_printf(t, ",\"isManager\":%s,\"attributes\":{\"department\":",
				n < NPEOPLE / 8 ? "true" : "false");
	text_json(t, areas[(size_t) n % COUNT(areas)], JSON_PLAIN);
	text_puts(t, ",\"location\":null}}");
}

/* A row of the collection "roles". */
void
role_json(Text *t, int n)
{
	const Thing *r = &things[n];
	const Person *owner = &people[(n * 13 + 2) % NPEOPLE];

	text_printf(t, "{\"id\":\"%s\",\"name\":", r->id);
	text_json(t, r->name, JSON_PLAIN);
	text_printf(t, ",\"description\":null,\"enabled\":%s,\"requestable\":%s,"
				"\"owner\":{\"type\":\"IDENTITY\",\"id\":\"%s\",\"name\":",
				n % 11 ? "true" : "false", n % 3 ? "true" : "false", owner->id);
	text_json(t, owner->name, JSON_PLAIN);
	text_puts(t, "}}");
}
