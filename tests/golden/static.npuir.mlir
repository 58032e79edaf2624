module {
  func.func @fake_quant(%x: tensor<64x256x3136xf16>, %scale: tensor<256xf32>, %zero_point: tensor<256xi32>) -> (tensor<64x256x3136xf16>, tensor<64x256x3136xi8>)
      attributes {hacc.entry, hacc.function_kind = #hacc.function_kind<DEVICE>} {
    %_empty1 = tensor.empty() : tensor<64x256x3136xf32>
    %cast = hfusion.cast {round_mode = #hfusion.round_mode<rint>} ins(%x : tensor<64x256x3136xf16>) outs(%_empty1 : tensor<64x256x3136xf32>) -> tensor<64x256x3136xf32>
    %_c2 = arith.constant 1.0 : f32
    %_empty3 = tensor.empty() : tensor<256xf32>
    %_fill4 = linalg.fill ins(%_c2 : f32) outs(%_empty3 : tensor<256xf32>) -> tensor<256xf32>
    %_empty5 = tensor.empty() : tensor<256xf32>
    %inverse_scale = linalg.elemwise_binary {fun = #linalg.binary_fn<div>} ins(%_fill4, %scale : tensor<256xf32>, tensor<256xf32>) outs(%_empty5 : tensor<256xf32>) -> tensor<256xf32>
    %_empty6 = tensor.empty() : tensor<64x256x3136xf32>
    %inverse_scale_all = linalg.broadcast ins(%inverse_scale : tensor<256xf32>) outs(%_empty6 : tensor<64x256x3136xf32>) dimensions = [0, 2]
    %_empty7 = tensor.empty() : tensor<64x256x3136xf32>
    %multiply = linalg.elemwise_binary {fun = #linalg.binary_fn<mul>} ins(%cast, %inverse_scale_all : tensor<64x256x3136xf32>, tensor<64x256x3136xf32>) outs(%_empty7 : tensor<64x256x3136xf32>) -> tensor<64x256x3136xf32>
    %_empty8 = tensor.empty() : tensor<64x256x3136xf32>
    %round_half_even = hfusion.cast {round_mode = #hfusion.round_mode<rint>} ins(%multiply : tensor<64x256x3136xf32>) outs(%_empty8 : tensor<64x256x3136xf32>) -> tensor<64x256x3136xf32>
    %_empty9 = tensor.empty() : tensor<256xf32>
    %zero_point_f32 = hfusion.cast {round_mode = #hfusion.round_mode<rint>} ins(%zero_point : tensor<256xi32>) outs(%_empty9 : tensor<256xf32>) -> tensor<256xf32>
    %_empty10 = tensor.empty() : tensor<64x256x3136xf32>
    %zero_point_f32_all = linalg.broadcast ins(%zero_point_f32 : tensor<256xf32>) outs(%_empty10 : tensor<64x256x3136xf32>) dimensions = [0, 2]
    %_empty11 = tensor.empty() : tensor<64x256x3136xf32>
    %add = linalg.elemwise_binary {fun = #linalg.binary_fn<add>} ins(%round_half_even, %zero_point_f32_all : tensor<64x256x3136xf32>, tensor<64x256x3136xf32>) outs(%_empty11 : tensor<64x256x3136xf32>) -> tensor<64x256x3136xf32>
    %_c13 = arith.constant -128.0 : f32
    %_empty14 = tensor.empty() : tensor<64x256x3136xf32>
    %_fill15 = linalg.fill ins(%_c13 : f32) outs(%_empty14 : tensor<64x256x3136xf32>) -> tensor<64x256x3136xf32>
    %_empty16 = tensor.empty() : tensor<64x256x3136xi1>
    %_greater12 = hfusion.compare {compare_fn = #hfusion.compare_fn<vgt>} ins(%add, %_fill15 : tensor<64x256x3136xf32>, tensor<64x256x3136xf32>) outs(%_empty16 : tensor<64x256x3136xi1>) -> tensor<64x256x3136xi1>
    %_empty17 = tensor.empty() : tensor<64x256x3136xf32>
    %_fill18 = linalg.fill ins(%_c13 : f32) outs(%_empty17 : tensor<64x256x3136xf32>) -> tensor<64x256x3136xf32>
    %_empty19 = tensor.empty() : tensor<64x256x3136xf32>
    %maximum = hfusion.select ins(%_greater12, %add, %_fill18 : tensor<64x256x3136xi1>, tensor<64x256x3136xf32>, tensor<64x256x3136xf32>) outs(%_empty19 : tensor<64x256x3136xf32>) -> tensor<64x256x3136xf32>
    %_c20 = arith.constant 127.0 : f32
    %_empty21 = tensor.empty() : tensor<64x256x3136xf32>
    %_fill22 = linalg.fill ins(%_c20 : f32) outs(%_empty21 : tensor<64x256x3136xf32>) -> tensor<64x256x3136xf32>
    %_empty23 = tensor.empty() : tensor<64x256x3136xf32>
    %minimum = linalg.elemwise_binary {fun = #linalg.binary_fn<min_signed>} ins(%maximum, %_fill22 : tensor<64x256x3136xf32>, tensor<64x256x3136xf32>) outs(%_empty23 : tensor<64x256x3136xf32>) -> tensor<64x256x3136xf32>
    %_empty24 = tensor.empty() : tensor<64x256x3136xf32>
    %subtract = linalg.elemwise_binary {fun = #linalg.binary_fn<sub>} ins(%minimum, %zero_point_f32_all : tensor<64x256x3136xf32>, tensor<64x256x3136xf32>) outs(%_empty24 : tensor<64x256x3136xf32>) -> tensor<64x256x3136xf32>
    %_empty25 = tensor.empty() : tensor<64x256x3136xf32>
    %scale_all = linalg.broadcast ins(%scale : tensor<256xf32>) outs(%_empty25 : tensor<64x256x3136xf32>) dimensions = [0, 2]
    %_empty26 = tensor.empty() : tensor<64x256x3136xf32>
    %multiply_2 = linalg.elemwise_binary {fun = #linalg.binary_fn<mul>} ins(%subtract, %scale_all : tensor<64x256x3136xf32>, tensor<64x256x3136xf32>) outs(%_empty26 : tensor<64x256x3136xf32>) -> tensor<64x256x3136xf32>
    %_empty27 = tensor.empty() : tensor<64x256x3136xf16>
    %out = hfusion.cast {round_mode = #hfusion.round_mode<rint>} ins(%multiply_2 : tensor<64x256x3136xf32>) outs(%_empty27 : tensor<64x256x3136xf16>) -> tensor<64x256x3136xf16>
    %_empty28 = tensor.empty() : tensor<64x256x3136xi1>
    %mask = hfusion.compare {compare_fn = #hfusion.compare_fn<veq>} ins(%add, %minimum : tensor<64x256x3136xf32>, tensor<64x256x3136xf32>) outs(%_empty28 : tensor<64x256x3136xi1>) -> tensor<64x256x3136xi1>
    %_empty29 = tensor.empty() : tensor<64x256x3136xi8>
    %_mask_int8 = hfusion.cast {round_mode = #hfusion.round_mode<rint>} ins(%mask : tensor<64x256x3136xi1>) outs(%_empty29 : tensor<64x256x3136xi8>) -> tensor<64x256x3136xi8>
    return %out, %_mask_int8 : tensor<64x256x3136xf16>, tensor<64x256x3136xi8>
  }
}
