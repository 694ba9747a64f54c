#include "aim-prefill.h"

#include "aim-error.h"
#include "aim-graph.h"
#include "aim-select.h"

#include "llama-context.h"
#include "llama-model.h"

#include <algorithm>
#include <cmath>
#include <cstring>

// of a ranking
static bool has_scores(int32_t importance) {
    return importance != AIM_IMPORTANCE_RANDOM && importance != AIM_IMPORTANCE_GRID;
}

// needs the queries of all rows
static bool is_walk(int32_t importance) {
    return importance == AIM_IMPORTANCE_PAGERANK || importance == AIM_IMPORTANCE_PAGERANK_RELATIVE;
}

static int32_t n_layers(const aim_range & range) {
    return range.il_end - range.il_begin;
}

static const int32_t MAX_SIZE = 1 << 24; // patches that one row stands for: exact in float

void aim_prefill_run::reserve_again(llama_context & ctx) {
    ctx.sched_need_reserve = true;
}

aim_kv_cache * aim_prefill_run::get_kv(const llama_context & ctx) {
    return dynamic_cast<aim_kv_cache *>(ctx.memory.get());
}

aim_prefill_run::aim_prefill_run(llama_context & ctx, const aim_prefill_params & params) :
    ctx(ctx), params(params), kv(*get_kv(ctx)), n_embd(ctx.model.hparams.n_embd),
    n_embd_inp(ctx.model.hparams.n_embd_inp()), p0(kv.seq_pos_max(0) + 1),
    backends(ctx.backend_ptrs, ctx.backend_buft) {
}

void aim_prefill_run::run() {
    check_context();
    check_params();
    check_question();
    check_held();
    check_cells();

    ctx.sched_reserve();
    ctx.memory_update(false); // pending shifts of earlier rows

    kv.trace = {};
    trace.stages.resize(kv.get_plan().size());

    ctx.t_compute_start_us = ggml_time_us();
    ctx.n_queued_tokens   += params.n_rows - params.n_held;

    try {
        embed_rows();
        weigh_rows();
        turn_rows();

        for (const segment & seg : plan_segments()) {
            run_segment(seg);

            if (seg.s_begin == 0 && params.n_held > 0) {
                rejoin();
            }

            if (seg.s_end < trace.stages.size() && params.n_keep[seg.s_end] < params.n_keep[seg.s_begin]) {
                prune(seg);
            }
        }
    } catch (...) {
        undo();
        throw;
    }

    ctx.synchronize(); // counts the rows as prompt tokens in the context's timings

    kv.trace = std::move(trace);
}

//
// checks: everything a caller can get wrong is refused before anything is computed
//

void aim_prefill_run::check_context() const {
    const auto & cparams = ctx.cparams;

    if (cparams.embeddings || !cparams.causal_attn) {
        throw aim_error(AIM_STATUS_UNSUPPORTED, "staged prefill needs a causal context that gives logits, not embeddings");
    }

    for (const bool is_output : cparams.embeddings_layer_inp) {
        if (is_output) {
            throw aim_error(AIM_STATUS_UNSUPPORTED, "staged prefill cannot give out layer inputs");
        }
    }

    if (!ctx.sampling.samplers.empty()) {
        throw aim_error(AIM_STATUS_UNSUPPORTED, "staged prefill does not run backend samplers; sample from the logits");
    }

    for (const auto & lora : *ctx.loras) {
        if (lora.first->get_weight(ctx.model.tok_embd)) {
            throw aim_error(AIM_STATUS_UNSUPPORTED, "staged prefill does not apply a LoRA adapter to the token embeddings");
        }
    }
}

void aim_prefill_run::check_params() const {
    const auto invalid = [](const std::string & text) { throw aim_error(AIM_STATUS_INVALID, text); };

    const size_t n_stages = kv.get_plan().size();

    if (params.n_rows <= 0 || params.n_held < 0 || params.n_held >= params.n_rows || !params.rows || !params.tokens || !params.n_keep) {
        invalid("a prefill needs at least one new row, and its rows, tokens and n_keep");
    }

    if (params.n_stages < 0 || size_t(params.n_stages) != n_stages) {
        invalid(format("n_keep has %d stages, the context has %zu", params.n_stages, n_stages));
    }

    int32_t n_visual = 0;
    int32_t n_others = 0;

    for (int32_t i = 0; i < params.n_rows; ++i) {
        const int32_t n_vocab = ctx.model.vocab.n_tokens();

        if (params.rows[i] < AIM_ROW_TOKEN || params.rows[i] > AIM_ROW_EMBD) {
            invalid(format("row %d is of kind %d; kinds are 0 (token), 1 (visual) and 2 (embedding)", i, params.rows[i]));
        }

        n_visual += params.rows[i] == AIM_ROW_VISUAL;

        if (i < params.n_held) {
            continue;
        }

        n_others += params.rows[i] != AIM_ROW_TOKEN;

        if (params.sizes && params.rows[i] == AIM_ROW_VISUAL && (params.sizes[i] < 1 || params.sizes[i] > MAX_SIZE)) {
            invalid(format("row %d stands for %d patches; allowed are 1 to %d", i, params.sizes[i], MAX_SIZE));
        }

        if (params.rows[i] == AIM_ROW_TOKEN && (params.tokens[i] < 0 || params.tokens[i] >= n_vocab)) {
            invalid(format("row %d is token %d; the vocabulary has %d", i, params.tokens[i], n_vocab));
        }
    }

    if (params.rows[params.n_rows - 1] != AIM_ROW_TOKEN) {
        invalid("the last row has to be a token: a prompt cannot end with visual rows");
    }

    if (n_others > 0 && !params.embd) {
        invalid(format("%d rows are embeddings, but embd is NULL", n_others));
    }

    if (params.n_keep[0] != n_visual) {
        invalid(format("n_keep[0] is %d, the rows have %d visual ones; nothing can be pruned before the first layer", params.n_keep[0], n_visual));
    }

    for (size_t s = 1; s < n_stages; ++s) {
        if (params.n_keep[s] < 0 || params.n_keep[s] > params.n_keep[s - 1]) {
            invalid(format("n_keep[%zu] is %d after %d; counts must not grow from stage to stage", s, params.n_keep[s], params.n_keep[s - 1]));
        }
    }

    if (params.ids && !kv.get_ids()) {
        invalid("ids are given, but a row of this model has no id beside its position");
    }

    for (int32_t i = params.n_held; params.ids && i < params.n_rows; ++i) {
        const int32_t * id = params.ids + 3*i;

        if (*std::min_element(id, id + 3) < 0 || *std::max_element(id, id + 3) > AIM_MAX_ID) {
            invalid(format("row %d has ids %d, %d, %d; allowed are 0 to %d", i, id[0], id[1], id[2], AIM_MAX_ID));
        }
    }

    if (params.n_bytes_scores < 0) {
        invalid("n_bytes_scores is below 0");
    }

    if (params.importance < AIM_IMPORTANCE_PAGERANK || params.importance > AIM_IMPORTANCE_QUESTION_VALUE) {
        invalid(format("importance %d is unknown; 0 is pagerank, 1 last_query, 2 random, 3 grid, 4 pagerank_relative, 5 question, 6 question_value",
                    params.importance));
    }

    if (params.select && !has_scores(params.importance)) {
        invalid("a selection callback needs scores: any importance but random and grid");
    }
}

void aim_prefill_run::check_question() {
    int32_t i = params.n_rows; // where the tokens at the end begin

    while (i > params.n_held && params.rows[i - 1] == AIM_ROW_TOKEN) {
        --i;
    }

    const int32_t n_tokens = params.n_rows - i;

    if (params.n_query < 0 || params.n_query > n_tokens) {
        throw aim_error(AIM_STATUS_INVALID, format("n_query is %d; of the rows at the end, %d are new tokens, and the question's have to be that",
                    params.n_query, n_tokens));
    }

    n_query = params.n_query > 0 ? params.n_query : n_tokens;
}

// the rows that are ranked again have to be those that the context holds
void aim_prefill_run::check_held() const {
    if (params.n_held == 0) {
        return;
    }

    if (!kv.is_held()) {
        throw aim_error(AIM_STATUS_UNSUPPORTED, kv.get_held() ?
                "the context does not hold the rows of all its positions (they were moved, or came from a state without them); prefill them anew" :
                "the context holds no rows that could be ranked again; make it with hold 1 or 2");
    }

    const auto & positions = kv.get_stage(0)->get_cells(0).seq_pos_get(0);

    if (positions.size() != size_t(params.n_held) || p0 != params.n_held) {
        throw aim_error(AIM_STATUS_INVALID, format("n_held is %d, the context has %zu rows up to position %d; n_held is 0 or all of them, without gaps",
                    params.n_held, positions.size(), p0 - 1));
    }

    const bool needs_q = is_walk(params.importance) && params.n_keep[1] > 0 && params.n_keep[1] < params.n_keep[0];

    if (needs_q && !kv.get_held()->get_q()) {
        throw aim_error(AIM_STATUS_UNSUPPORTED,
                "the context holds no queries, which importance 0 and 4 (pagerank, pagerank_relative) rank by; make it with hold 2");
    }
}

void aim_prefill_run::check_cells() const {
    for (size_t s = 0; s < kv.get_plan().size(); ++s) {
        const aim_stage & stage = kv.get_plan()[s];

        const bool is_anew = s > 0 && params.n_held > 0;

        const uint32_t n_used = is_anew ? 0 : kv.get_stage(s)->get_cells(0).get_used();
        const uint32_t n_new  = params.n_rows - params.n_keep[0] + params.n_keep[s] - (is_anew ? 0 : params.n_held);

        if (n_used + n_new > stage.n_cells) {
            throw aim_error(AIM_STATUS_CONTEXT_FULL, format("the context is full: layers %d to %d have %u of %u cells free, %u rows need one",
                        stage.il_begin, stage.il_end - 1, stage.n_cells - n_used, stage.n_cells, n_new));
        }
    }
}

//
// steps
//

void aim_prefill_run::embed_rows() {
    const int32_t n_new = params.n_rows - params.n_held;

    rows  .resize(n_new);
    hidden.resize(size_t(n_new)*n_embd_inp);

    std::vector<int32_t> tokens;

    const float * embd = params.embd;

    const int8_t      * kinds = params.rows   + params.n_held;
    const llama_token * ids   = params.tokens + params.n_held;

    int32_t i_visual = std::count(params.rows, kinds, AIM_ROW_VISUAL);

    for (int32_t i = 0; i < n_new; ++i) {
        rows[i] = { p0 + i, kinds[i] == AIM_ROW_VISUAL ? i_visual++ : -1 };

        if (kinds[i] == AIM_ROW_TOKEN) {
            tokens.push_back(ids[i]);
        } else {
            memcpy(hidden.data() + i*n_embd_inp, embd, n_embd_inp*sizeof(float));
            embd += n_embd_inp;
        }
    }

    std::vector<float> found(tokens.size()*n_embd);
    aim_get_rows(backends, ctx.model.tok_embd, tokens, found.data());

    for (int32_t i = 0, j = 0; i < n_new; ++i) {
        if (kinds[i] == AIM_ROW_TOKEN) {
            memcpy(hidden.data() + i*n_embd_inp, found.data() + n_embd*j++, n_embd*sizeof(float));
        }
    }
}

// undo() takes them away with the positions
void aim_prefill_run::weigh_rows() {
    for (size_t i = 0; params.sizes && i < rows.size(); ++i) {
        if (rows[i].i_visual >= 0) {
            kv.weights.set(rows[i].pos, params.sizes[params.n_held + i]);
        }
    }
}

// as weigh_rows()
void aim_prefill_run::turn_rows() {
    aim_ids * ids = kv.get_ids();

    for (size_t i = 0; ids && i < rows.size(); ++i) {
        if (params.ids) {
            const int32_t * id = params.ids + 3*(params.n_held + i);

            ids->set(rows[i].pos, { id[0], id[1], id[2] });
        } else {
            ids->set_text(rows[i].pos);
        }
    }
}

std::vector<aim_prefill_run::segment> aim_prefill_run::plan_segments() const {
    const size_t n_stages = kv.get_plan().size();

    std::vector<segment> res;

    for (size_t s = 0; s < n_stages;) {
        size_t s_end = s + 1;

        // where rows are held after the first stage, earlier ones may join there
        while (s_end < n_stages && params.n_keep[s_end] == params.n_keep[s] && !(s == 0 && params.n_held > 0)) {
            ++s_end;
        }

        // a drop of everything needs no ranking
        res.push_back({ s, s_end, has_scores(params.importance) && s_end < n_stages && params.n_keep[s_end] > 0 && params.n_keep[s_end] < params.n_keep[s] });

        s = s_end;
    }

    return res;
}

// rows of each ubatch: as few ubatches as can be, of nearly one size, all but the last of whole tiles of flash attention (64 rows);
// a small last one would miss its kernels for many rows
static std::vector<size_t> split_rows(size_t n_rows, size_t n_ubatch) {
    const size_t n_tile     = n_ubatch % 64 == 0 ? 64 : 1;
    const size_t n_tiles    = (n_rows + n_tile   - 1)/n_tile;
    const size_t n_ubatches = (n_rows + n_ubatch - 1)/n_ubatch;

    std::vector<size_t> res;

    for (size_t i = 0; i < n_ubatches; ++i) {
        res.push_back(std::min(n_tile*(n_tiles/n_ubatches + (i < n_tiles % n_ubatches)), n_rows));
        n_rows -= res.back();
    }

    return res;
}

void aim_prefill_run::run_segment(const segment & seg) {
    const int64_t t_start_us = ggml_time_us();

    const aim_range whole = kv.get_range(seg.s_begin, seg.s_end, -1);
    const aim_range range = kv.get_range(seg.s_begin, seg.s_end, seg.is_scored && !has_held_q(seg) ? whole.il_end - 1 : -1);

    const bool is_last = seg.s_end == trace.stages.size();

    std::vector<llama_ubatch> ubatches;

    size_t i_row = 0;

    for (const size_t n : split_rows(rows.size(), ctx.cparams.n_ubatch)) {
        ubatches.push_back(make_ubatch(i_row, n));
        i_row += n;
    }

    if (range.il_score >= 0) {
        q.resize(n_queries()*ctx.model.hparams.n_head(range.il_score)*ctx.model.hparams.n_embd_head_k(range.il_score));
    }

    // needs to happen before the graphs are built
    if (is_last && ctx.output_reserve(1) < 1) {
        throw aim_error(AIM_STATUS_FAILED, "not enough memory for the logits");
    }

    const auto mctx = kv.init_range(range, std::move(ubatches));

    if (mctx->get_status() != LLAMA_MEMORY_STATUS_SUCCESS) {
        throw aim_error(AIM_STATUS_CONTEXT_FULL, format("the context is full: no cells for %zu rows in layers %d to %d",
                    rows.size(), range.il_begin, range.il_end - 1));
    }

    size_t i0 = 0;

    do {
        check_stop();

        const llama_ubatch & ubatch = mctx->get_ubatch();

        ctx.n_outputs = is_last && i0 + ubatch.n_tokens == rows.size() ? 1 : 0;

        ggml_status status;
        auto * res = ctx.process_ubatch(ubatch, LLM_GRAPH_TYPE_DEFAULT, mctx.get(), status);

        if (!res) {
            const bool is_abort = status == GGML_STATUS_ABORTED;

            if (status == GGML_STATUS_ALLOC_FAILED) {
                throw std::bad_alloc();
            }

            aim_fail(is_abort ? AIM_STATUS_ABORTED : AIM_STATUS_FAILED, "%s in layers %d to %d",
                    is_abort ? "aborted" : "failed to compute", range.il_begin, range.il_end - 1);
        }

        collect(*res, ubatch, i0, seg);

        i0 += ubatch.n_tokens;
    } while (mctx->next());

    ctx.output_swaps.clear();

    const double t_ms = (ggml_time_us() - t_start_us)/1000.0;

    for (size_t s = seg.s_begin; s < seg.s_end; ++s) {
        auto & stage = trace.stages[s];

        stage.kept       = visual_indices();
        stage.n_rows     = rows.size();
        stage.prefill_ms = t_ms*n_layers(kv.get_range(s, s + 1, -1))/n_layers(range);
    }
}

// after the first stage: earlier rows come back from where they are held, and the later stages begin anew with all rows
void aim_prefill_run::rejoin() {
    std::vector<int32_t> cells = kv.get_cells();
    cells.resize(params.n_held);

    std::vector<row> all;

    for (int32_t i = 0, i_visual = 0; i < params.n_held; ++i) {
        all.push_back({ i, params.rows[i] == AIM_ROW_VISUAL ? i_visual++ : -1 });
    }

    all.insert(all.end(), rows.begin(), rows.end());

    const ggml_tensor * t = kv.get_held()->get_hidden();

    const size_t n_row = t->ne[0];

    std::vector<float> held(cells.size()*n_row);
    std::vector<float> joined(all.size()*n_embd_inp);

    aim_held_rows::read(t, cells, held.data());

    for (size_t i = 0; i < cells.size(); ++i) {
        memcpy(joined.data() + i*n_embd_inp, held.data() + i*n_row, n_row*sizeof(float));
    }

    std::copy(hidden.begin(), hidden.end(), joined.begin() + cells.size()*n_embd_inp);

    rows   = std::move(all);
    hidden = std::move(joined);

    trace.stages[0].kept = visual_indices();

    later = kv.copy_later();
    kv.drop_later();
}

void aim_prefill_run::undo() {
    ctx.synchronize();
    ctx.n_outputs = 0;

    kv.seq_rm(0, p0, -1);

    if (!later.empty()) {
        kv.restore_later(later);
    }
}

void aim_prefill_run::prune(const segment & seg) {
    const int64_t t_start_us = ggml_time_us();

    const int32_t il     = kv.get_range(seg.s_begin, seg.s_end, -1).il_end - 1;
    const int32_t n      = params.n_keep[seg.s_begin];
    const int32_t n_keep = params.n_keep[seg.s_end];

    std::vector<float> importance;

    if (seg.is_scored) {
        check_stop();
        importance = score(il, seg);
    }

    gather(select(il, importance, n, n_keep));

    if (seg.is_scored) {
        trace.importance[il] = std::move(importance);
    }

    trace.stages[seg.s_end - 1].importance_ms = (ggml_time_us() - t_start_us)/1000.0;
}

//
// parts of steps
//

// on the CPU a graph asks by itself, other backends do not
void aim_prefill_run::check_stop() const {
    if (ctx.abort_callback && ctx.abort_callback(ctx.abort_callback_data)) {
        aim_fail(AIM_STATUS_ABORTED, "aborted between two graphs");
    }
}

// a ubatch that reads its rows from `hidden`
llama_ubatch aim_prefill_run::make_ubatch(size_t i0, size_t n) const {
    auto udata = std::make_shared<llama_ubatch::data_t>();

    udata->pos       .resize(n);
    udata->n_seq_id  .assign(n, 1);
    udata->seq_id_unq.assign(1, 0);
    udata->seq_id    .assign(n, udata->seq_id_unq.data());
    udata->seq_idx   .assign(LLAMA_MAX_SEQ, -1);
    udata->output    .assign(n, 0);

    udata->seq_idx[0] = 0;

    for (size_t i = 0; i < n; ++i) {
        udata->pos[i] = rows[i0 + i].pos;
    }

    udata->output[n - 1] = i0 + n == rows.size();

    llama_ubatch res {
        /*.b_equal_seqs =*/ false,
        /*.n_tokens     =*/ uint32_t(n),
        /*.n_seq_tokens =*/ 1,
        /*.n_seqs       =*/ uint32_t(n),
        /*.n_seqs_unq   =*/ 1,
        /*.n_pos        =*/ 1,
        /*.token        =*/ nullptr,
        /*.embd         =*/ const_cast<float *>(hidden.data()) + i0*n_embd_inp,
        /*.pos          =*/ udata->pos.data(),
        /*.n_seq_id     =*/ udata->n_seq_id.data(),
        /*.seq_id       =*/ udata->seq_id.data(),
        /*.seq_id_unq   =*/ udata->seq_id_unq.data(),
        /*.seq_idx      =*/ udata->seq_idx.data(),
        /*.output       =*/ udata->output.data(),
        /*.data         =*/ std::move(udata),
    };

    return res;
}

// takes what a graph gives out: hidden states into the rows they came from, queries, logits
void aim_prefill_run::collect(llm_graph_result & res, const llama_ubatch & ubatch, size_t i0, const segment & seg) {
    ggml_backend_sched_synchronize(ctx.sched.get());

    if (seg.s_end < trace.stages.size()) {
        read_hidden(res.get_embd(), i0, ubatch.n_tokens);
    } else if (ctx.n_outputs > 0) {
        ggml_backend_tensor_get(res.get_logits(), ctx.logits.data, 0, ctx.model.vocab.n_tokens()*sizeof(float));
    }

    if (seg.is_scored && !has_held_q(seg)) {
        collect_q(res, i0, ubatch.n_tokens);
    }
}

void aim_prefill_run::read_hidden(const ggml_tensor * t, size_t i0, size_t n) {
    if (n_embd_inp == n_embd) {
        ggml_backend_tensor_get(t, hidden.data() + i0*n_embd, 0, n*n_embd*sizeof(float));
        return;
    }

    for (size_t i = 0; i < n; ++i) {
        ggml_backend_tensor_get(t, hidden.data() + (i0 + i)*n_embd_inp, i*n_embd*sizeof(float), n_embd*sizeof(float));
    }
}

void aim_prefill_run::collect_q(llm_graph_result & res, size_t i0, size_t n) {
    const ggml_tensor * t = ggml_graph_get_tensor(res.get_gf(), AIM_TENSOR_Q); // [n_embd_head, n_head, n]

    GGML_ASSERT(t && ggml_is_contiguous(t) && "a scored layer's graph gives its queries out");

    const size_t n_q    = q.size()/(t->ne[0]*t->ne[1]);
    const size_t i_skip = rows.size() - n_q; // rows whose queries are not wanted

    if (i0 + n <= i_skip) {
        return;
    }

    const size_t i_first = std::max(i0, i_skip);

    ggml_backend_tensor_get(t, q.data() + (i_first - i_skip)*t->ne[0]*t->ne[1], (i_first - i0)*t->nb[2], (i0 + n - i_first)*t->nb[2]);
}

bool aim_prefill_run::has_held_q(const segment & seg) const {
    return seg.s_end == 1 && is_walk(params.importance) && kv.get_held() && kv.get_held()->get_q();
}

// of the present rows, the last ones whose queries rank
size_t aim_prefill_run::n_queries() const {
    return is_walk(params.importance) ? rows.size() : params.importance == AIM_IMPORTANCE_LAST_QUERY ? 1 : n_query;
}

// as collect_q() leaves them: row by row
void aim_prefill_run::read_q(const std::vector<int32_t> & cells) {
    const ggml_tensor * t = kv.get_held()->get_q();

    q.resize(cells.size()*t->ne[0]);

    aim_held_rows::read(t, cells, q.data());
}

static std::vector<float> value_norms(const llama_kv_cache & stage, int32_t il, const std::vector<int32_t> & cells) {
    const ggml_context_ptr ctx(ggml_init({ 2*ggml_tensor_overhead(), nullptr, true }));

    llama_kv_cache::slot_info first_stream = {};

    return aim_value_norms(stage.get_v(ctx.get(), il, stage.get_size(), first_stream), cells);
}

// one score for each row of the layer, or for each row of this call
std::vector<float> aim_prefill_run::scores_of(int32_t il, llama_kv_cache & stage, const aim_scored_layer & layer) {
    switch (params.importance) {
        case AIM_IMPORTANCE_PAGERANK_RELATIVE: return aim_importance_pagerank_relative(backends, layer);
        case AIM_IMPORTANCE_LAST_QUERY:        return aim_importance_last_query(backends, layer);
        case AIM_IMPORTANCE_QUESTION:          return aim_importance_question(backends, layer, {});
        case AIM_IMPORTANCE_QUESTION_VALUE:    return aim_importance_question(backends, layer, value_norms(stage, il, layer.cells));
        default:                               return aim_importance_pagerank(backends, layer);
    }
}

// importance of the visual rows at the last layer of the segment, il
std::vector<float> aim_prefill_run::score(int32_t il, const segment & seg) {
    const auto & hparams = ctx.model.hparams;

    llama_kv_cache & stage = *kv.get_stage(seg.s_end - 1);

    std::vector<int32_t> cells;
    std::vector<float>   weights;

    for (const auto & [pos, cell] : stage.get_cells(0).seq_pos_get(0)) {
        cells.push_back(cell);

        if (!kv.weights.empty()) {
            weights.push_back(kv.weights.get(pos));
        }
    }

    if (has_held_q(seg)) {
        read_q({ cells.end() - rows.size(), cells.end() });
    }

    const aim_near_keys keys(stage.get_k_storage(il), cells);

    const float kq_scale = hparams.f_attention_scale == 0.0f ? 1.0f/std::sqrt(float(hparams.n_embd_head_k(il))) : hparams.f_attention_scale;

    const aim_scored_layer layer = {
        /*.n_head      =*/ hparams.n_head(il),
        /*.n_head_kv   =*/ hparams.n_head_kv(il),
        /*.n_embd_head =*/ hparams.n_embd_head_k(il),
        /*.kq_scale    =*/ kq_scale,
        /*.n_q         =*/ int64_t(n_queries()),
        /*.q           =*/ q.data(),
        /*.k           =*/ keys.get(),
        /*.cells       =*/ std::move(cells),
        /*.weights     =*/ std::move(weights),
        /*.n_bytes_max =*/ size_t(params.n_bytes_scores),
        /*.abort       =*/ ctx.abort_callback,
        /*.abort_data  =*/ ctx.abort_callback_data,
    };

    const std::vector<float> scores = scores_of(il, stage, layer);

    // the scores end with those of this call's rows
    const size_t i_skip = scores.size() - rows.size();

    std::vector<float> res;

    for (size_t i = 0; i < rows.size(); ++i) {
        if (rows[i].i_visual >= 0) {
            res.push_back(scores[i_skip + i]);

            if (!std::isfinite(res.back())) {
                throw aim_error(AIM_STATUS_FAILED, format("the scores of layer %d are not finite: check the visual embeddings", il));
            }
        }
    }

    return res;
}

std::vector<int32_t> aim_prefill_run::select(int32_t il, const std::vector<float> & importance, int32_t n, int32_t n_keep) const {
    if (params.importance == AIM_IMPORTANCE_RANDOM) {
        return aim_select_random(n, n_keep, params.seed, il);
    }

    if (params.importance == AIM_IMPORTANCE_GRID) {
        return aim_select_grid(n, n_keep);
    }

    if (n_keep == 0) {
        return {};
    }

    if (!params.select) {
        return aim_select_top(importance, n_keep);
    }

    const auto refuse = [&](const std::string & text) {
        throw aim_error(AIM_STATUS_CALLBACK, format("the selection callback %s at layer %d", text.c_str(), il));
    };

    std::vector<int32_t> kept(n, -1); // room for a callback that returns too many
    const int32_t n_kept = params.select(params.select_data, il, importance.data(), n, n_keep, kept.data());

    if (n_kept < 0) {
        refuse("gave up");
    }

    if (n_kept != n_keep) {
        refuse(format("kept %d of %d visual rows, %d were asked for,", n_kept, n, n_keep));
    }

    kept.resize(n_keep);
    std::sort(kept.begin(), kept.end());

    if (kept.front() < 0 || kept.back() >= n) {
        refuse(format("returned index %d, allowed are 0 to %d,", kept.front() < 0 ? kept.front() : kept.back(), n - 1));
    }

    const auto twice = std::adjacent_find(kept.begin(), kept.end());

    if (twice != kept.end()) {
        refuse(format("returned index %d twice", *twice));
    }

    return kept;
}

// drops the visual rows that are not kept; `kept` counts visual rows
void aim_prefill_run::gather(const std::vector<int32_t> & kept) {
    size_t n_rows = 0;

    int32_t i_present = 0;

    auto next = kept.begin();

    for (size_t i = 0; i < rows.size(); ++i) {
        if (rows[i].i_visual >= 0 && (next == kept.end() || *next != i_present)) {
            ++i_present;
            continue;
        }

        if (rows[i].i_visual >= 0) {
            ++i_present;
            ++next;
        }

        if (n_rows != i) {
            rows[n_rows] = rows[i];
            memcpy(hidden.data() + n_rows*n_embd_inp, hidden.data() + i*n_embd_inp, n_embd_inp*sizeof(float));
        }

        ++n_rows;
    }

    rows  .resize(n_rows);
    hidden.resize(n_rows*n_embd_inp);
}

std::vector<int32_t> aim_prefill_run::visual_indices() const {
    std::vector<int32_t> res;

    for (const row & r : rows) {
        if (r.i_visual >= 0) {
            res.push_back(r.i_visual);
        }
    }

    return res;
}
