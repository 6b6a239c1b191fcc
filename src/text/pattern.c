/* An expression becomes a tree, the tree a graph over characters, and each pair of a node of the
 * graph and a number of characters (as far as min and max tell them apart) a state of the form. */
#include "text/pattern.h"

#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"

#define LAST 0x10ffff
#define RANGES 256 /* of one class */

typedef enum { EMPTY, CLASS, SEQUENCE, EITHER, REPEAT } tree_kind;

typedef struct {
	tree_kind kind;
	int32_t a, b;        /* parts; CLASS: ranges[a] up to ranges[b] */
	int32_t least, most; /* REPEAT; most -1: no limit */
} tree;

typedef struct {
	uint32_t lo, hi;
} range;

/* A node of the graph: on to `to` with a character of ranges[first] up to ranges[last], or, where
 * first is -1, to `to` or `other` without one. */
typedef struct {
	int32_t first, last, to, other;
} node;

typedef struct {
	const char *text, *at, *end;
	tree *trees;
	range *ranges;
	node *nodes;
	size_t n_trees, cap_trees, n_ranges, cap_ranges, n_nodes, cap_nodes;
	int depth;
	size_t work; /* parts of the tree that were written out */
	pal_status status;
	pal_error *err;
} parser;

static int32_t fail(parser *p, pal_status status, const char *why)
{
	if (!p->status)
		p->status = pal__fail(p->err, status, "pattern \"%.100s\": %s (at \"%.20s\")",
				      p->text, why, p->at);
	return -1;
}

static int32_t no_memory(parser *p)
{
	if (!p->status)
		p->status = pal__fail_memory(p->err, "a pattern", p->cap_nodes * sizeof(node));
	return -1;
}

/* --- the tree ------------------------------------------------------------- */

static int32_t add_tree(parser *p, tree t)
{
	if (p->status)
		return -1;
	if (p->n_trees == PAL__PATTERN_NODES)
		return fail(p, PAL_ELIMIT, "it is too long");
	if (!pal__grow((void **)&p->trees, &p->cap_trees, p->n_trees + 1, sizeof t))
		return no_memory(p);
	p->trees[p->n_trees] = t;
	return (int32_t)p->n_trees++;
}

static void add_range(parser *p, uint32_t lo, uint32_t hi)
{
	if (p->status)
		return;
	if (!pal__grow((void **)&p->ranges, &p->cap_ranges, p->n_ranges + 1, sizeof *p->ranges)) {
		no_memory(p);
		return;
	}
	p->ranges[p->n_ranges++] = (range){lo, hi};
}

/* The ranges from `first` on become those that they leave out. */
static void negate(parser *p, size_t first)
{
	range was[RANGES];
	size_t n = p->status ? 0 : p->n_ranges - first;
	if (n > RANGES) {
		fail(p, PAL_ELIMIT, "a class has too many parts");
		return;
	}
	if (n)
		memcpy(was, p->ranges + first, n * sizeof *was);
	p->n_ranges = first;
	for (uint32_t c = 0; c <= LAST && !p->status;) {
		uint32_t next = LAST + 1, behind = c;
		for (size_t i = 0; i < n; i++) {
			if (was[i].lo <= c && c <= was[i].hi && was[i].hi + 1 > behind)
				behind = was[i].hi + 1;
			if (was[i].lo > c && was[i].lo < next)
				next = was[i].lo;
		}
		if (behind == c)
			add_range(p, c, next - 1);
		c = behind == c ? next : behind;
	}
}

/* \d \w \s and their negations; false: another letter. */
static bool add_named(parser *p, char letter)
{
	size_t first = p->n_ranges;
	switch (letter) {
	case 'w':
	case 'W':
		add_range(p, 'A', 'Z');
		add_range(p, 'a', 'z');
		add_range(p, '_', '_');
		__attribute__((fallthrough));
	case 'd':
	case 'D':
		add_range(p, '0', '9');
		break;
	case 's':
	case 'S': {
		static const range spaces[] = {{9, 13},          {' ', ' '},       {0xa0, 0xa0},
					       {0x1680, 0x1680}, {0x2000, 0x200a}, {0x2028, 0x2029},
					       {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000},
					       {0xfeff, 0xfeff}};
		for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++)
			add_range(p, spaces[i].lo, spaces[i].hi);
		break;
	}
	default:
		return false;
	}
	if (letter < 'a')
		negate(p, first);
	return true;
}

static uint32_t character(parser *p)
{
	utf8proc_int32_t c = 0;
	utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)p->at, p->end - p->at, &c);
	if (n <= 0) {
		fail(p, PAL_EINVAL, "it ends too soon");
		p->at = p->end;
		return 0;
	}
	p->at += n;
	return (uint32_t)c;
}

static uint32_t hex(parser *p, int digits)
{
	uint32_t c = 0;
	for (; digits--; p->at++) {
		static const char all[] = "0123456789abcdef";
		const char *at = p->at < p->end ? memchr(all, *p->at | 0x20, 16) : NULL;
		if (!at || *p->at < '0') {
			fail(p, PAL_EINVAL, "a digit is missing");
			return 0;
		}
		c = c << 4 | (uint32_t)(at - all);
	}
	return c;
}

/* What is behind a backslash, not a named class. */
static uint32_t escape(parser *p)
{
	static const char letters[] = "nrtfv", means[] = "\n\r\t\f\v";
	uint32_t c = character(p);
	const char *at = c && c < 128 ? strchr(letters, (int)c) : NULL;
	if (at)
		return (uint8_t)means[at - letters];
	if (c == 'x' || c == 'u')
		return hex(p, c == 'x' ? 2 : 4);
	if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
		fail(p, PAL_EUNSUPPORTED, "an escape that is not known here");
	return c;
}

static bool accept(parser *p, char c)
{
	if (p->at == p->end || *p->at != c)
		return false;
	p->at++;
	return true;
}

/* One end of a range; false: a named class, which was added. */
static bool class_end(parser *p, uint32_t *c)
{
	if (!accept(p, '\\'))
		return *c = character(p), true;
	if (p->at < p->end && add_named(p, *p->at))
		return p->at++, false;
	if (accept(p, 'b'))
		return *c = '\b', true;
	return *c = escape(p), true;
}

static int32_t class_tree(parser *p, size_t first)
{
	return add_tree(p, (tree){CLASS, (int32_t)first, (int32_t)p->n_ranges, 0, 0});
}

/* Behind '['. */
static int32_t class(parser *p)
{
	size_t first = p->n_ranges;
	bool negated = accept(p, '^');
	while (!p->status && !accept(p, ']')) {
		uint32_t lo, hi;
		if (!class_end(p, &lo))
			continue;
		hi = lo;
		if (p->end - p->at > 1 && p->at[0] == '-' && p->at[1] != ']') {
			p->at++;
			if (!class_end(p, &hi) || hi < lo)
				return fail(p, PAL_EINVAL, "a range without an end");
		}
		add_range(p, lo, hi);
	}
	if (negated)
		negate(p, first);
	return class_tree(p, first);
}

static int32_t alternatives(parser *p);

static int32_t atom(parser *p)
{
	size_t first = p->n_ranges;
	if (accept(p, '(')) {
		if (accept(p, '?') && !accept(p, ':'))
			return fail(p, PAL_EUNSUPPORTED, "a group that is not known here");
		if (++p->depth > PAL__PATTERN_DEPTH)
			return fail(p, PAL_ELIMIT, "groups are too deep");
		int32_t t = alternatives(p);
		p->depth--;
		return accept(p, ')') ? t : fail(p, PAL_EINVAL, "a group does not end");
	}
	if (accept(p, '['))
		return class(p);
	if (accept(p, '.')) {
		static const range ends[] = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};
		for (size_t i = 0; i < 3; i++)
			add_range(p, ends[i].lo, ends[i].hi);
		negate(p, first);
		return class_tree(p, first);
	}
	if (strchr("*+?{", *p->at))
		return fail(p, PAL_EINVAL, "nothing to repeat");
	if (strchr("^$", *p->at))
		return fail(p, PAL_EUNSUPPORTED, "^ and $ are known at the ends only");
	if (accept(p, '\\')) {
		if (p->at < p->end && add_named(p, *p->at)) {
			p->at++;
			return class_tree(p, first);
		}
		uint32_t c = escape(p);
		add_range(p, c, c);
		return class_tree(p, first);
	}
	uint32_t c = character(p);
	add_range(p, c, c);
	return class_tree(p, first);
}

static int32_t number(parser *p)
{
	int32_t n = -1;
	for (; p->at < p->end && *p->at >= '0' && *p->at <= '9'; p->at++) {
		n = (n < 0 ? 0 : n) * 10 + (*p->at - '0');
		if (n > PAL__PATTERN_REPEAT)
			return fail(p, PAL_ELIMIT, "it repeats too often");
	}
	return n;
}

static int32_t repeated(parser *p)
{
	int32_t t = atom(p);
	while (!p->status && p->at < p->end && strchr("*+?{", *p->at)) {
		tree r = {REPEAT, t, -1, *p->at == '+', *p->at == '?' ? 1 : -1};
		if (*p->at++ == '{') {
			r.least = r.most = number(p);
			if (accept(p, ','))
				r.most = number(p);
			if (r.least < 0 || (r.most >= 0 && r.most < r.least) || !accept(p, '}'))
				return fail(p, PAL_EINVAL, "a count that is none");
		}
		accept(p, '?'); /* the same texts match */
		t = add_tree(p, r);
	}
	return t;
}

/* Up to '|', ')' or the end of everything. */
static int32_t sequence(parser *p)
{
	int32_t t = add_tree(p, (tree){EMPTY, -1, -1, 0, 0});
	while (!p->status && p->at < p->end && *p->at != '|' && *p->at != ')') {
		if (!p->depth && *p->at == '$' && (p->end - p->at == 1 || p->at[1] == '|'))
			break;
		t = add_tree(p, (tree){SEQUENCE, t, repeated(p), 0, 0});
	}
	return t;
}

static int32_t anything(parser *p)
{
	size_t first = p->n_ranges;
	add_range(p, 0, LAST);
	return add_tree(p, (tree){REPEAT, class_tree(p, first), -1, 0, -1});
}

static int32_t alternative(parser *p)
{
	bool open = !p->depth && !accept(p, '^'); /* anything may be before it */
	int32_t t = sequence(p);
	if (open)
		t = add_tree(p, (tree){SEQUENCE, anything(p), t, 0, 0});
	if (!p->depth && !accept(p, '$'))
		t = add_tree(p, (tree){SEQUENCE, t, anything(p), 0, 0});
	return t;
}

static int32_t alternatives(parser *p)
{
	int32_t t = alternative(p);
	while (!p->status && accept(p, '|'))
		t = add_tree(p, (tree){EITHER, t, alternative(p), 0, 0});
	return t;
}

/* --- the graph ------------------------------------------------------------ */

static int32_t add_node(parser *p, node n)
{
	if (p->status)
		return -1;
	if (p->n_nodes == PAL__FORM_STATES)
		return fail(p, PAL_ELIMIT, "it is too long");
	if (!pal__grow((void **)&p->nodes, &p->cap_nodes, p->n_nodes + 1, sizeof n))
		return no_memory(p);
	p->nodes[p->n_nodes] = n;
	return (int32_t)p->n_nodes++;
}

static int32_t graph(parser *p, int32_t t, int32_t to);

static int32_t graph_repeat(parser *p, const tree r, int32_t to)
{
	int32_t end = to;
	if (r.most < 0) { /* round and round */
		to = add_node(p, (node){-1, -1, -1, end});
		int32_t body = graph(p, r.a, to);
		if (p->status)
			return -1;
		p->nodes[to].to = body;
	}
	for (int32_t i = r.least; i < r.most && !p->status; i++)
		to = add_node(p, (node){-1, -1, graph(p, r.a, to), end});
	for (int32_t i = 0; i < r.least && !p->status; i++)
		to = graph(p, r.a, to);
	return to;
}

/* The trees are shallow, but for sequences and alternatives, which lean to the left. */
static int32_t graph(parser *p, int32_t t, int32_t to)
{
	for (;;) {
		if (!p->status && ++p->work > 1 << 20)
			fail(p, PAL_ELIMIT, "it repeats too often");
		if (p->status)
			return -1;
		const tree r = p->trees[t];
		switch (r.kind) {
		case EMPTY:
			return to;
		case CLASS:
			return add_node(p, (node){r.a, r.b, to, -1});
		case SEQUENCE:
			to = graph(p, r.b, to);
			t = r.a;
			continue;
		case EITHER:
			return add_node(p, (node){-1, -1, graph(p, r.a, to), graph(p, r.b, to)});
		default:
			return graph_repeat(p, r, to);
		}
	}
}

/* --- the form ------------------------------------------------------------- */

typedef struct {
	pal__form *f;
	const parser *p;
	uint32_t min, max, rows;
	int32_t to;
	int32_t *states; /* [rows][n_nodes + 1] of f, 0: not made. Holes */
	struct {
		uint32_t row;
		int32_t node;
	} * todo;
	size_t n_todo, cap_todo;
} lowering;

/* The state of a node (n_nodes: the end) after as many characters as the row says. */
static int32_t state(lowering *l, uint32_t row, int32_t at)
{
	if (row >= l->rows) /* too many, or as many as min and more */
		row = l->max < PAL__FORM_MANY ? l->rows : l->rows - 1;
	if (row == l->rows)
		return -1;
	int32_t *s = &l->states[row * (l->p->n_nodes + 1) + (size_t)at];
	if (*s == 0) {
		*s = 1 + pal__form_hole(l->f);
		if (!pal__grow((void **)&l->todo, &l->cap_todo, l->n_todo + 1, sizeof *l->todo))
			l->f->status = PAL_ENOMEM;
		else {
			l->todo[l->n_todo].row = row;
			l->todo[l->n_todo++].node = at;
		}
	}
	return *s - 1;
}

static void fill(lowering *l, uint32_t row, int32_t at)
{
	int32_t hole = l->states[row * (l->p->n_nodes + 1) + (size_t)at] - 1;
	if ((size_t)at == l->p->n_nodes) {
		pal__form_fill(l->f, hole, row >= l->min ? l->to : -1, -1);
		return;
	}
	const node *n = &l->p->nodes[at];
	if (n->first < 0) {
		int32_t to = state(l, row, n->to);
		pal__form_fill(l->f, hole, to, state(l, row, n->other));
		return;
	}
	int32_t out = -1, to = state(l, row + 1, n->to);
	for (int32_t i = n->first; i < n->last; i++)
		out = pal__form_split(
			l->f, pal__form_chars(l->f, l->p->ranges[i].lo, l->p->ranges[i].hi, to),
			out);
	pal__form_fill(l->f, hole, out, -1);
}

static pal_status lower(parser *p, pal__form *f, int32_t first, uint32_t min, uint32_t max,
			int32_t to, int32_t *start)
{
	uint32_t rows = 1 + (max < PAL__FORM_MANY ? max : min);
	lowering l = {.f = f, .p = p, .min = min, .max = max, .rows = rows, .to = to};
	if (rows > PAL__FORM_STATES || rows * (p->n_nodes + 1) > 1 << 22)
		return fail(p, PAL_ELIMIT, "its minLength or maxLength is too large"), p->status;
	l.states = pal__calloc(rows, (p->n_nodes + 1) * sizeof *l.states);
	if (!l.states)
		return no_memory(p), p->status;
	*start = state(&l, 0, first);
	while (l.n_todo && !f->status) {
		l.n_todo--;
		fill(&l, l.todo[l.n_todo].row, l.todo[l.n_todo].node);
	}
	pal__free(l.states);
	pal__free(l.todo);
	return PAL_OK;
}

pal_status pal__form_pattern(pal__form *f, const char *pattern, size_t n, uint32_t min,
			     uint32_t max, int32_t to, int32_t *start, pal_error *err)
{
	parser p = {.text = pattern, .at = pattern, .end = pattern + n, .err = err};
	int32_t t = alternatives(&p), end = PAL__FORM_STATES;
	if (!p.status && p.at < p.end)
		fail(&p, PAL_EINVAL, "a ) too many");
	int32_t first = p.status ? -1 : graph(&p, t, end);
	/* the end's number is known only now */
	for (size_t i = 0; i < p.n_nodes; i++) {
		if (p.nodes[i].to == end)
			p.nodes[i].to = (int32_t)p.n_nodes;
		if (p.nodes[i].other == end)
			p.nodes[i].other = (int32_t)p.n_nodes;
	}
	if (first == end)
		first = (int32_t)p.n_nodes;
	if (!p.status)
		lower(&p, f, first, min, max, to, start);
	pal__free(p.trees);
	pal__free(p.ranges);
	pal__free(p.nodes);
	return p.status;
}
