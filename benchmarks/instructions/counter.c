/* A QEMU plugin that counts the executed A64 instructions by class, between marks that the program sets, and writes JSON
 * when the program ends.
 *
 *   qemu-aarch64 -plugin libcounter.so,out=FILE PROGRAM
 *
 * Classes follow the top level of the A64 encoding (Arm Architecture Reference Manual for A-profile, "A64 instruction set
 * encoding", bits 28 to 25) and, below it, what a convolution's cost is made of: vector multiply-adds, other SIMD and
 * floating point, loads and stores. A block of code adds to its classes once when it is entered: what a signal cuts short
 * inside a block is counted to the block's end.
 *
 * A mark is the system call getpriority(PRIO_PROCESS, MARK), which fails: every mark adds the counts so far to the list.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stdint.h>

#include <qemu-plugin.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

enum { FMA_VECTOR, FMA_SCALAR, SIMD, LOAD_SIMD, STORE_SIMD, LOAD, STORE, BRANCH, INTEGER, CLASSES };

static const char *const names[CLASSES] = {
    "fma_vector", "fma_scalar", "simd", "load_simd", "store_simd", "load", "store", "branch", "integer",
};
static qemu_plugin_u64 counts[CLASSES];
static struct qemu_plugin_scoreboard *boards[CLASSES];
static char *out;

#define MARK 1928374655
#define GETPRIORITY 141
#define MOST_MARKS 1024
static uint64_t marks[MOST_MARKS][CLASSES];
static int marked;

/* Advanced SIMD FMLA and FMLS on float32 or float64, 128 bit, three registers or by element. */
static int is_vector_fma(uint32_t word)
{
    return (word & 0xff20fc00) == 0x4e20cc00 /* FMLA, FMLS (bit 23) */
        || (word & 0xff80b400) == 0x4f801000; /* by element, FMLS has bit 14 */
}

static int loads(uint32_t word)
{
    if ((word & 0x3b000000) == 0x18000000) { /* from a literal's place */
        return 1;
    }
    if (!(word & 0x04000000) && (word & 0x38000000) == 0x38000000) { /* one general register: opc 0 stores */
        return (word & 0x00c00000) != 0;
    }
    return (word & 0x00400000) != 0;
}

static int class_of(uint32_t word)
{
    switch ((word >> 25) & 15) {
    case 8: case 9:
        return INTEGER; /* data processing, immediate */
    case 10: case 11:
        return BRANCH; /* branches, exceptions, system */
    case 4: case 12:
        return loads(word) ? LOAD : STORE;
    case 6: case 14:
        return loads(word) ? LOAD_SIMD : STORE_SIMD;
    case 7: case 15:
        if (is_vector_fma(word)) {
            return FMA_VECTOR;
        }
        return (word & 0xff000000) == 0x1f000000 ? FMA_SCALAR : SIMD;
    default: /* 5 and 13: data processing, registers; no Cortex-A76 has what is left (SVE, SME) */
        return INTEGER;
    }
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    uint64_t found[CLASSES] = {0};

    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
        uint32_t word = 0;
        qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i), &word, sizeof(word));
        found[class_of(word)]++;
    }
    for (int c = 0; c < CLASSES; c++) {
        if (found[c]) {
            qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_ADD_U64, counts[c], found[c]);
        }
    }
}

static void called(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                   uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    if (number == GETPRIORITY && a2 == MARK && marked < MOST_MARKS) {
        for (int c = 0; c < CLASSES; c++) {
            marks[marked][c] = qemu_plugin_u64_sum(counts[c]);
        }
        marked++;
    }
}

static void write_counts(FILE *file, const uint64_t *values)
{
    uint64_t total = 0;

    fputc('{', file);
    for (int c = 0; c < CLASSES; c++) {
        total += values[c];
        fprintf(file, "\"%s\": %llu, ", names[c], (unsigned long long)values[c]);
    }
    fprintf(file, "\"total\": %llu}", (unsigned long long)total);
}

static void ended(qemu_plugin_id_t id, void *data)
{
    uint64_t all[CLASSES];
    FILE *file = fopen(out, "w");

    if (!file) {
        perror(out);
        return;
    }
    for (int c = 0; c < CLASSES; c++) {
        all[c] = qemu_plugin_u64_sum(counts[c]);
    }
    fputs("{\"marks\": [", file);
    for (int m = 0; m < marked; m++) {
        fputs(m ? ",\n" : "", file);
        write_counts(file, marks[m]);
    }
    fputs("],\n\"end\": ", file);
    write_counts(file, all);
    fputs("}\n", file);
    fclose(file);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    if (strcmp(info->target_name, "aarch64")) {
        fprintf(stderr, "counter: counts aarch64, not %s\n", info->target_name);
        return -1;
    }
    if (argc != 1 || strncmp(argv[0], "out=", 4)) {
        fprintf(stderr, "counter: -plugin libcounter.so,out=FILE\n");
        return -1;
    }
    out = strdup(argv[0] + 4);
    for (int c = 0; c < CLASSES; c++) {
        boards[c] = qemu_plugin_scoreboard_new(sizeof(uint64_t));
        counts[c] = qemu_plugin_scoreboard_u64(boards[c]);
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
