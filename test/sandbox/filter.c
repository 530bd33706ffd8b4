/*
 * filter.c
 *
 * The grammar of the query parameter "filters": field operator value, joined
 * by "and", with exactly the fields and operators that an API version knows.
 * Whatever else a client sends is refused, because the tenant refuses it.
 */
#include "sandbox.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Lexer
{
	const char *p;
	Filter	   *f;
	bool		nothing;		/* a date is in a form that the tenant does not take */
} Lexer;

const char *const date_forms[] = {"neither", "bare", "quoted", "both", NULL};

static const char *const op_names[] = {"eq", "ne", "gt", "ge", "lt", "le", "sw", "in"};

static bool
fail(Lexer *l, const char *format, const char *what)
{
	if (l->f->error[0] == '\0')
		snprintf(l->f->error, sizeof(l->f->error), format, what);
	return false;
}

static void
skip_space(Lexer *l)
{
	while (*l->p == ' ')
		l->p++;
}

/* Letters up to something else; room for 63. */
static void
read_word(Lexer *l, char out[64])
{
	int			n = 0;

	skip_space(l);
	while (((*l->p | 32) >= 'a' && (*l->p | 32) <= 'z') && n < 63)
		out[n++] = *l->p++;
	out[n] = '\0';
}

/* A string in double quotes, unescaped; NULL where there is none. */
static char *
read_string(Lexer *l)
{
	Text		t = {0};

	skip_space(l);
	if (*l->p != '"')
	{
		fail(l, "a string in double quotes is expected at \"%.60s\"", l->p);
		return NULL;
	}
	text_puts(&t, "");
	for (l->p++; *l->p && *l->p != '"'; l->p++)
	{
		if (*l->p == '\\' && l->p[1] != '"' && l->p[1] != '\\')
			break;
		if (*l->p == '\\')
			l->p++;
		text_add(&t, l->p, 1);
	}
	if (*l->p != '"')
	{
		fail(l, "a string is not closed or wrongly escaped at \"%.60s\"", l->p);
		text_free(&t);
		return NULL;
	}
	l->p++;
	return t.data;
}

static bool
read_field(Lexer *l, Pred *p)
{
	char		word[64];

	read_word(l, word);
	if (strcmp(word, "accountActivityItemId") == 0)
		p->field = FIELD_ID;
	else if (strcmp(word, "accessRequestId") == 0)
		p->field = FIELD_REQUEST;
	else if (strcmp(word, "created") == 0)
		p->field = FIELD_CREATED;
	else
		return fail(l, "\"%s\" is not a field that can be filtered by", word);
	return true;
}

/* Which operators a field takes is not the same in every version. */
static bool
op_allowed(Field field, Op op, Api api)
{
	switch (field)
	{
		case FIELD_ID:
			return op != OP_LT;
		case FIELD_CREATED:
			return op != OP_SW && op != OP_IN;
		default:
			return op != OP_IN || api == API_BETA || api == API_V3;
	}
}

static bool
read_op(Lexer *l, Pred *p, Api api)
{
	char		word[64];

	if (*l->p != ' ')
		return fail(l, "an operator is expected at \"%.60s\"", l->p);
	read_word(l, word);
	for (int op = OP_EQ; op <= OP_IN; op++)
		if (strcmp(word, op_names[op]) == 0)
		{
			p->op = (Op) op;
			return op_allowed(p->field, p->op, api) ||
				fail(l, "the operator \"%s\" is not supported for this field", word);
		}
	return fail(l, "unknown operator \"%s\"", word);
}

/* A date in a form that is not taken is refused, or matches nothing. */
static bool
take_form(Lexer *l, DateForms form)
{
	if (options.dates & form)
		return true;
	l->nothing = true;
	return !options.refuse_dates || fail(l, "a date is in the wrong form: \"%.60s\"", l->p);
}

static bool
read_date(Lexer *l, Pred *p)
{
	char		bare[64];
	int			n = 0;

	skip_space(l);
	if (*l->p == '"')
	{
		char	   *s;

		if (!take_form(l, DATES_QUOTED) || (s = read_string(l)) == NULL)
			return false;
		p->time = date_parse(s, true);
		free(s);
	}
	else
	{
		if (!take_form(l, DATES_BARE))
			return false;
		while (*l->p && *l->p != ' ' && n < 63)
			bare[n++] = *l->p++;
		bare[n] = '\0';
		p->time = date_parse(bare, true);
	}
	return p->time != NO_TIME || fail(l, "not a date%s", "");
}

static bool
read_list(Lexer *l, Pred *p)
{
	skip_space(l);
	if (*l->p != '(')
		return fail(l, "a list in parentheses is expected at \"%.60s\"", l->p);
	do
	{
		char	   *s;

		l->p++;
		if ((s = read_string(l)) == NULL)
			return false;
		p->list = xrealloc(p->list, (p->nlist + 1) * sizeof(char *));
		p->list[p->nlist++] = s;
		skip_space(l);
	} while (*l->p == ',');
	if (*l->p != ')')
		return fail(l, "a list is not closed at \"%.60s\"", l->p);
	l->p++;
	return true;
}

static bool
read_pred(Lexer *l, Pred *p, Api api)
{
	if (!read_field(l, p) || !read_op(l, p, api))
		return false;
	if (*l->p != ' ' && !(p->op == OP_IN && *l->p == '('))
		return fail(l, "a value is expected at \"%.60s\"", l->p);
	if (p->field == FIELD_CREATED)
		return read_date(l, p);
	if (p->op == OP_IN)
		return read_list(l, p);
	return (p->text = read_string(l)) != NULL;
}

static bool
read_conditions(Lexer *l, Api api)
{
	Filter	   *f = l->f;
	char		word[64];

	for (;;)
	{
		if (f->n == MAX_PREDS)
			return fail(l, "too many conditions%s", "");
		f->n++;
		if (!read_pred(l, &f->preds[f->n - 1], api))
			return false;
		if (*l->p == '\0')
			return true;
		if (*l->p != ' ')
			return fail(l, "\"and\" is expected at \"%.60s\"", l->p);
		skip_space(l);
		if (*l->p == '\0')
			return true;
		read_word(l, word);
		if (strcmp(word, "and") != 0)
			return fail(l, "\"and\" is expected instead of \"%s\"", word);
		if (*l->p != ' ')
			return fail(l, "a condition is expected at \"%.60s\"", l->p);
	}
}

/* False with f->error set; the caller frees f either way. */
bool
filter_parse(Filter *f, const char *s, Api api)
{
	Lexer		l = {s, f, false};

	memset(f, 0, sizeof(Filter));
	if (!read_conditions(&l, api))
		return false;
	if (l.nothing)
	{
		/* no row has an empty id */
		filter_free(f);
		memset(f, 0, sizeof(Filter));
		f->n = 1;
		f->preds[0].field = FIELD_ID;
		f->preds[0].op = OP_EQ;
		f->preds[0].text = xstrdup("");
	}
	return true;
}

void
filter_free(Filter *f)
{
	for (int i = 0; i < f->n; i++)
	{
		free(f->preds[i].text);
		for (size_t k = 0; k < f->preds[i].nlist; k++)
			free(f->preds[i].list[k]);
		free(f->preds[i].list);
	}
	f->n = 0;
}

/* Below (-1), at (0) or above (1) the condition's value, as the order sees it. */
static int
compare_value(const Pred *p, const Item *item, bool descending)
{
	if (p->field == FIELD_CREATED)
	{
		int64_t		t = order_time(item, FIELD_CREATED, descending);

		return t < p->time ? -1 : t > p->time;
	}
	else
	{
		const char *s = p->field == FIELD_ID ? item->id : item->request_id ? item->request_id : "";
		int			c = p->op == OP_SW ? strncmp(s, p->text, strlen(p->text)) : strcmp(s, p->text);

		return c < 0 ? -1 : c > 0;
	}
}

/* On which side of what the condition wants a row lies; not for ne and in. */
int
pred_side(const Pred *p, const Item *item, bool descending)
{
	int			c = compare_value(p, item, descending);

	/* null satisfies nothing, and lies outside */
	if (p->field == FIELD_CREATED && item->created == NO_TIME)
		return c;
	if ((p->field == FIELD_ID && *item->id == '\0') || (p->field == FIELD_REQUEST && !item->request_id))
		return -1;
	switch (p->op)
	{
		case OP_GT:
			return c > 0 ? 0 : -1;
		case OP_GE:
			return c >= 0 ? 0 : -1;
		case OP_LT:
			return c < 0 ? 0 : 1;
		case OP_LE:
			return c <= 0 ? 0 : 1;
		default:
			return c;
	}
}

bool
pred_match(const Pred *p, const Item *item)
{
	const char *s = p->field == FIELD_ID ? item->id : item->request_id;

	if (p->field == FIELD_CREATED ? item->created == NO_TIME : (s == NULL || *s == '\0'))
		return false;
	if (p->op == OP_NE)
		return compare_value(p, item, false) != 0;
	if (p->op != OP_IN)
		return pred_side(p, item, false) == 0;
	for (size_t i = 0; i < p->nlist; i++)
		if (strcmp(s, p->list[i]) == 0)
			return true;
	return false;
}
