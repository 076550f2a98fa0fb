"""What is read out of a compiled program: collectives, and what becomes of int8 weights."""

from actors.engine.planning.program_text import (
    Launches,
    count_collectives,
    count_launches,
    weight_copies,
)

PROGRAM = """
HloModule jit__prefill, is_scheduled=true

%product (p.0: bf16[4,64], p.1: s8[64,32]) -> f32[4,32] {
  %p.0 = bf16[4,64]{1,0} parameter(0)
  %p.1 = s8[64,32]{1,0} parameter(1)
  %widened = bf16[64,32]{1,0} convert(%p.1)
  ROOT %dot = f32[4,32]{1,0} dot(%p.0, %widened), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%body (state: (s8[64,32], s8[2,64,32])) -> (s8[64,32], s8[2,64,32]) {
  %state = (s8[64,32]{1,0}, s8[2,64,32]{2,1,0}) parameter(0)
  %w.1 = s8[64,32]{1,0} get-tuple-element(%state), index=0
  %experts = s8[2,64,32]{2,1,0} get-tuple-element(%state), index=1
  %mask = s8[4,16]{1,0} broadcast(%zero), dimensions={}
  %shown = s32[4,16]{1,0} convert(%mask)
  %kernel = bf16[4,32]{1,0} custom-call(%x, %experts), custom_call_target="__gpu$xla.gpu.triton"
  %gemm = f32[4,32]{1,0} fusion(%x, %w.1), kind=kCustom, calls=%product, metadata={op_name="dot"}
  BAD
  ROOT %next = (s8[64,32]{1,0}, s8[2,64,32]{2,1,0}) tuple(%w.1, %experts)
}

ENTRY %main (a: s8[64,32], b: s8[2,64,32], c: s8[7]) -> (s8[64,32], s8[2,64,32]) {
  %a = s8[64,32]{1,0} parameter(0)
  %b = s8[2,64,32]{2,1,0} parameter(1)
  %both = (s8[64,32]{1,0}, s8[2,64,32]{2,1,0}) tuple(%a, %b)
  ROOT %loop = (s8[64,32]{1,0}, s8[2,64,32]{2,1,0}) while(%both), condition=%cond, body=%body
}
"""


WIDEN = """
%widen (p.2: s8[64,32]) -> bf16[64,32] {
  %p.2 = s8[64,32]{1,0} parameter(0)
  ROOT %wide = bf16[64,32]{1,0} convert(%p.2)
}

"""


def test_weight_copies_ignores_products_and_kernels() -> None:
    assert weight_copies(PROGRAM.replace("  BAD\n", "")) == []


def test_weight_copies_names_slices_conversions_and_copies() -> None:
    bad = """  %slice.1 = s8[1,64,32]{2,1,0} slice(%experts), slice={[0:1], [0:64], [0:32]}
  %widened.1 = bf16[64,32]{1,0} fusion(%w.1), kind=kLoop, calls=%widen
  %copy.1 = s8[64,32]{0,1} copy(%w.1)
"""
    assert weight_copies(WIDEN + PROGRAM.replace("  BAD\n", bad)) == [
        "slice.1: slice to s8[1,64,32]",
        "widened.1: fusion to bf16[64,32]",
        "copy.1: copy to s8[64,32]",
    ]


def test_count_collectives_counts_each_once() -> None:
    program = """
      %all-reduce.7 = bf16[16,6144]{1,0} all-reduce(bf16[16,6144]{1,0} %x), channel_id=1
      %start = bf16[16]{0} all-reduce-start(bf16[16]{0} %all-reduce.7), channel_id=2
      %done = bf16[16]{0} all-reduce-done(bf16[16]{0} %start)
      %both = (f32[8]{0}, f32[8]{0}) all-gather(f32[1]{0} %a, f32[1]{0} %b), channel_id=3
      ROOT %sum = f32[16]{0} fusion(%all-reduce.7), calls=%all-reduce.computation
    """
    assert count_collectives(program) == {"all-reduce": 2, "all-gather": 1}


def test_count_launches_counts_what_a_step_of_the_loop_runs() -> None:
    """A layer has its own kernels; of a collective in two parts, the start counts."""
    metadata = 'metadata={{op_name="while/body/decoder_layer_{layer}/{name}"}}'
    body = ""
    for layer, kernels in enumerate((["sine", "norm", "psum"], ["norm", "psum"], ["norm"])):
        for name in kernels:
            operation = "all-reduce-start" if name == "psum" else "fusion"
            label = metadata.format(layer=layer, name=name)
            body += f"  %{name}.{layer} = f32[4]{{0}} {operation}(%x), calls=%inner, {label}\n"
        done = f"  %done.{layer} = f32[4]{{0}} all-reduce-done(%psum.{layer})\n"
        body += done if "psum" in kernels else ""
    program = f"""
%inner (p.0: f32[4]) -> f32[4] {{
  %p.0 = f32[4]{{0}} parameter(0)
  %a = f32[4]{{0}} add(%p.0, %p.0)
  %b = f32[4]{{0}} add(%a, %a)
  %c = f32[4]{{0}} add(%b, %b)
  %d = f32[4]{{0}} add(%c, %c)
  %e = f32[4]{{0}} add(%d, %d)
  %f = f32[4]{{0}} add(%e, %e)
  ROOT %g = f32[4]{{0}} add(%f, %f)
}}

%body (state: (f32[4])) -> (f32[4]) {{
  %state = (f32[4]{{0}}) parameter(0)
  %x = f32[4]{{0}} get-tuple-element(%state), index=0
{body}  ROOT %next = (f32[4]{{0}}) tuple(%norm.2)
}}

ENTRY %main (a: f32[4]) -> f32[4] {{
  %a = f32[4]{{0}} parameter(0)
  %state.1 = (f32[4]{{0}}) tuple(%a)
  ROOT %loop = (f32[4]{{0}}) while(%state.1), condition=%cond, body=%body
}}
"""
    assert count_launches(program) == Launches(step=6, layer=2)
